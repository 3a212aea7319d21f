# SPDX-License-Identifier: Apache-2.0
"""Malicious and malformed files: nothing in them runs, one line says what is wrong, and nothing is
left behind."""

import _codecs
import json
import os
import pickle
import struct
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.errors import InputError, NumericsError
from conversion import torch_files
from conversion.convert import convert
from conversion.export import write_composer, write_huggingface
from conversion.mapping import table, to_stored
from tests.fixtures.tiny_weights import TINY, edit_config, random_weights
from tests.fixtures.torch_models import torch

pytestmark = pytest.mark.torch


class Calls:
    """Unpickled the usual way, it calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def good(tmp_path: Path) -> Path:
    """A Composer checkpoint without fault."""
    folder = tmp_path / "good"
    folder.mkdir()
    write_composer(random_weights(), folder)
    return folder / "latest-rank0.pt"


def with_payload(tmp_path: Path, place, payload) -> bytes:
    """The good checkpoint with something else in it."""
    tree = torch_files.load(good(tmp_path))
    tree[place] = payload
    torch.save(tree, tmp_path / "bad.pt")
    return (tmp_path / "bad.pt").read_bytes()


def odd(tmp_path: Path, change) -> bytes:
    """The good checkpoint after `change(state)`."""
    tree = torch_files.load(good(tmp_path))
    change(tree["state"])
    torch.save(tree, tmp_path / "bad.pt")
    return (tmp_path / "bad.pt").read_bytes()


def changed(tmp_path: Path, change) -> bytes:
    return odd(tmp_path, lambda state: change(state["model"]))


def packed(tmp_path: Path) -> bytes:
    with zipfile.ZipFile(good(tmp_path)) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(tmp_path / "bad.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return (tmp_path / "bad.pt").read_bytes()


def old_format(tmp_path: Path) -> bytes:
    tree = torch_files.load(good(tmp_path))
    torch.save(tree, tmp_path / "bad.pt", _use_new_zipfile_serialization=False)
    return (tmp_path / "bad.pt").read_bytes()


def touch(tmp_path: Path) -> str:
    return f"touch {tmp_path / 'ran'}"


def nan(model) -> None:
    model["model.head.norm.weight"] = torch.full((TINY.hidden_size,), float("nan"))


NORM = "model.bert.final_norm.weight"
PICKLES = {
    "os.system": (
        lambda tmp: with_payload(tmp, "rng", [Calls(os.system, touch(tmp))]),
        "posix.system",
    ),
    "builtins": (
        lambda tmp: with_payload(tmp, "state2", Calls(eval, f"open({str(tmp / 'ran')!r}, 'w')")),
        "builtin.*eval",
    ),
    "torch gadget": (
        lambda tmp: with_payload(tmp, "rng", Calls(torch.save, 0, str(tmp / "ran"))),
        "torch.serialization.save",
    ),
    "nested": (
        lambda tmp: with_payload(
            tmp, "rng", {"a": [(1, {"b": Calls(subprocess.call, ["touch", str(tmp / "ran")])})]}
        ),
        r"\.call, which weights do not need",
    ),
    "hexadecimal": (
        lambda tmp: with_payload(tmp, "rng", Calls(_codecs.encode, b"a", "hex")),
        "its pickle holds what weights do not need",
    ),
    "bytearray": (lambda tmp: with_payload(tmp, "rng", Calls(bytearray, 9)), "builtin.*bytearray"),
    "tensor": (lambda tmp: with_payload(tmp, "rng", Calls(torch.Tensor, 9)), "torch.Tensor, which"),
    "numpy": (
        lambda tmp: with_payload(tmp, "rng", np.ones(2)),
        "its pickle holds what weights do not need",
    ),
    "other machine's words": (
        lambda tmp: with_payload(tmp, "rng", np.ones(2, ">u4")),
        "its pickle holds what weights do not need",
    ),
    "numpy objects": (
        lambda tmp: with_payload(tmp, "rng", np.array([{}], object)),
        "its pickle holds what weights do not need",
    ),
    "scalar": (lambda tmp: with_payload(tmp, "rng", np.float64(1)), r"multiarray\.scalar"),
    "shared": (
        lambda tmp: with_payload(tmp, "rng", [[[[[[torch.ones(999)] * 20] * 20] * 20] * 20] * 20]),
        "more than .* values",
    ),
    "packed": (packed, "its parts are compressed"),
    "old format": (old_format, "it is not a zip archive"),
    "bare pickle": (
        lambda tmp: pickle.dumps(Calls(os.system, touch(tmp)), protocol=4),
        "posix.system",
    ),
    "truncated": (lambda tmp: good(tmp).read_bytes()[:-700], "not a whole file of torch.save"),
    "text": (lambda tmp: b"these are not the weights you are looking for\n", "not a whole file"),
    "empty": (lambda tmp: b"", "not a whole file"),
    "wrong shape": (
        lambda tmp: changed(tmp, lambda m: m.update({NORM: torch.ones(17)})),
        r"final_norm.weight is \[17\] and should be \[16\]",
    ),
    "missing": (lambda tmp: changed(tmp, lambda m: m.pop(NORM)), "1 missing: model.final_norm"),
    "extra": (
        lambda tmp: changed(tmp, lambda m: m.update({"model.backdoor": torch.ones(2)})),
        "1 unexpected: backdoor",
    ),
    "NaN": (lambda tmp: changed(tmp, nan), "NaN or infinity in 1 of 23 tensors: head.norm"),
    "other decoder": (
        lambda tmp: changed(tmp, lambda m: m.update({"model.decoder.weight": torch.ones(300, 16)})),
        "decoder.weight is not the token table",
    ),
    "odd optimizers": (
        lambda tmp: odd(tmp, lambda state: state.update(optimizers=[1, 2])),
        r"\[1, 2\] is not StableAdamW",
    ),
    "odd tokenizer": (
        lambda tmp: odd(tmp, lambda state: state.update(integrations={"huggingface": 3})),
        "not laid out as a Composer checkpoint",
    ),
    "odd clock": (
        lambda tmp: odd(tmp, lambda state: state.update(timestamp={"Timestamp": {"batch": "x"}})),
        "not laid out as a Composer checkpoint",
    ),
    "no tensors": (lambda tmp: changed(tmp, lambda m: m.update({NORM: "x"})), "is str, not a tens"),
}


@pytest.mark.parametrize("kind", PICKLES)
def test_hostile_checkpoints(kind, tmp_path) -> None:
    make, message = PICKLES[kind]
    bad = tmp_path / "bad.pt"
    bad.write_bytes(make(tmp_path))
    before = sorted(tmp_path.iterdir())
    refusal = NumericsError if kind == "NaN" else InputError
    with pytest.raises(refusal, match=message) as error:
        convert(str(bad), "orbax", tmp_path / "out")
    assert str(bad) in str(error.value)
    assert "\n" not in str(error.value)
    assert sorted(tmp_path.iterdir()) == before
    assert not (tmp_path / "ran").exists()


def test_the_same_payloads_do_run_without_this_reader(tmp_path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(PICKLES["os.system"][0](tmp_path))
    torch.load(bad, weights_only=False)
    assert (tmp_path / "ran").exists()


def lying_header(folder: Path) -> None:
    header = {"decoder.bias": {"dtype": "F32", "shape": [300], "data_offsets": [0, 2**40]}}
    text = json.dumps(header).encode()
    data = struct.pack("<Q", len(text)) + text + bytes(1200)
    (folder / "model.safetensors").write_bytes(data)


def endless_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", 2**63) + bytes(64))


def escaping_index(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {"decoder.bias": "../../etc/weights"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def hostile_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({"decoder.bias": Calls(os.system, touch(folder))}, folder / "pytorch_model.bin")


def list_bin(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save([torch.ones(2)], folder / "pytorch_model.bin")


FOLDERS = {
    lying_header: "model.safetensors cannot be read",
    endless_header: "model.safetensors cannot be read",
    escaping_index: "outside its folder",
    hostile_bin: "pytorch_model.bin asks for posix.system",
    list_bin: "holds a list, not tensors",
}


@pytest.mark.parametrize("spoil", FOLDERS)
def test_hostile_folders(spoil, tmp_path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write_huggingface(random_weights(), folder)
    spoil(folder)
    with pytest.raises(InputError, match=FOLDERS[spoil]) as error:
        convert(str(folder), "orbax", tmp_path / "out")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]
    assert not (folder / "ran").exists()


def test_the_command_says_it_in_one_line(tmp_path) -> None:
    bad = tmp_path / "bad.pt"
    bad.write_bytes(PICKLES["os.system"][0](tmp_path))
    command = [sys.executable, "-m", "conversion.convert", "--input", str(bad), "--to", "orbax"]
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()
    assert done.stderr.startswith(f"error: {bad} asks for posix.system")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("shards", [1, 2])
def test_older_bin_files_are_read(shards, tmp_path) -> None:
    weights = random_weights()
    folder = tmp_path / "folder"
    folder.mkdir()
    write_huggingface(weights, folder)
    (folder / "model.safetensors").unlink()
    stored = {
        name: torch.from_numpy(x) for name, x in to_stored(weights.params, table(TINY)).items()
    }
    names = list(stored)
    if shards == 1:
        torch.save(stored, folder / "pytorch_model.bin")
    else:
        files = [f"pytorch_model-0000{i + 1}-of-00002.bin" for i in range(2)]
        halves = [names[::2], names[1::2]]
        for file, half in zip(files, halves, strict=True):
            torch.save({name: stored[name] for name in half}, folder / file)
        index = {name: file for file, half in zip(files, halves, strict=True) for name in half}
        index = {"metadata": {}, "weight_map": index}
        (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    edit_config(folder, rope_parameters=..., layer_types=...)  # as old as such files are
    found = convert(str(folder), "orbax", tmp_path / "orbax")
    assert found.tensors.tensors == 23
    assert np.isfinite(found.logits.difference)
