# SPDX-License-Identifier: Apache-2.0
"""Conversion: every bit kept, nothing half-written, mistakes seen, refusals in one line."""

import functools
import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import conversion
from bcmb_jax import agreements, commands
from bcmb_jax.agreements import Agreement
from bcmb_jax.errors import InputError, NumericsError, run
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.training.checkpoint import latest
from conversion.config_json import config_json
from conversion.convert import WRITERS, convert, in_dtype
from conversion.export import write_huggingface
from conversion.mapping import table, to_stored
from conversion.verify import compare
from conversion.weights import read
from tests.fixtures.tiny_weights import random_weights, same_bits


def test_round_trip_keeps_every_bit(folder, tmp_path) -> None:
    there = convert(str(folder), "orbax", tmp_path / "orbax")
    back = convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "back")
    for found in (there, back):
        assert found.tensors.tensors == 23
        assert found.tensors.difference == 0
    for file in folder.iterdir():
        if file.name not in ("README.md", "manifest.json"):  # which say where it is from
            assert (tmp_path / "back" / file.name).read_bytes() == file.read_bytes(), file.name
    assert latest(tmp_path / "orbax") == (tmp_path / "orbax").resolve()
    initial = conversion.load_initial(tmp_path / "orbax")
    assert initial.opt_state is None
    assert same_bits(initial.params, read(folder).params)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["back", "huggingface", "orbax"]


CLASSIFIERS = ("sequence_classification", "token_classification")
HALVES = ("bfloat16", "float16")


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        *((kind, "float32") for kind in MODELS),
        *(("masked_lm", dtype) for dtype in HALVES),
        *(
            pytest.param(kind, dtype, marks=pytest.mark.slow)
            for kind in MODELS
            for dtype in HALVES
            if kind != "masked_lm"
        ),
    ],
)
def test_every_head_and_dtype_goes_both_ways(kind, dtype, tmp_path) -> None:
    head = Head(kind, ("a", "b", "c") if kind in CLASSIFIERS else (), "cls")
    weights = in_dtype(random_weights(head=head), dtype)
    source = tmp_path / "source"
    source.mkdir()
    write_huggingface(weights, source)
    convert(str(source), "orbax", tmp_path / "orbax")
    convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "back")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "back" / name).read_bytes() == (source / name).read_bytes()
    again = read(tmp_path / "back")
    assert (again.head, again.dtype) == (head, dtype)
    assert same_bits(again.params, weights.params)
    stored = load_file(source / "model.safetensors")
    assert {x.dtype.name for x in stored.values()} == {dtype}
    assert any("model." in name for name in stored) == (kind != "encoder")


@pytest.mark.slow
@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("config", [BASE, LARGE], ids=["base", "large"])
def test_published_sizes_in_shards_with_the_decoder_written_out(config, kind, tmp_path) -> None:
    head = Head(kind, ("a", "b", "c") if kind in CLASSIFIERS else ())
    stored = to_stored(random_weights(config, head).params, table(config, head))
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text(json.dumps(config_json(config, {}, head)))
    tied = dict(stored)
    if kind == "masked_lm":
        tied["decoder.weight"] = stored["model.embeddings.tok_embeddings.weight"]
    files = {}
    for number in range(3):
        part = {name: tied[name] for name in list(tied)[number::3]}
        files |= dict.fromkeys(part, f"model-{number + 1:05}-of-00003.safetensors")
        save_file(part, source / files[next(iter(part))])
    (source / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": files})
    )
    convert(str(source), "orbax", tmp_path / "orbax")
    convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "back")
    back = load_file(tmp_path / "back" / "model.safetensors")
    if kind == "encoder":
        stored = {name.removeprefix("model."): x for name, x in stored.items()}
    assert same_bits(stored, back)


def test_exports_can_be_rounded_but_not_beyond_their_range(folder, tmp_path) -> None:
    before = read(folder).params["decoder.bias"]
    convert(str(folder), "huggingface", tmp_path / "half", dtype="bfloat16")
    half = read(tmp_path / "half")
    assert half.dtype == "bfloat16"
    error = np.abs(half.params["decoder.bias"] - before)
    assert error.max() > 0
    assert (error <= 2**-8 * np.abs(before)).all()
    weights = random_weights()
    weights.params["decoder.bias"][5] = 1e5
    with pytest.raises(NumericsError, match="random as float16 holds NaN or infinity in 1 of 23"):
        in_dtype(weights, "float16")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_command_takes_weights_that_are_not_finite(folder, tmp_path, capsys, value) -> None:
    stored = load_file(folder / "model.safetensors")
    stored["decoder.bias"][3] = value
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    output = str(tmp_path / "out")
    converted = [["convert", "--input", folder, "--output", output, "--to", to] for to in WRITERS]
    timed = ["evaluate", "--model", folder, "--task", "speed", "--output", output]
    filled = ["fill-mask", "--model", folder, "--text", "a [MASK]"]
    for command in (
        *(functools.partial(commands.main, *map(str, x)) for x in (*converted, timed, filled)),
        functools.partial(conversion.from_pretrained, folder),
        functools.partial(conversion.load_initial, folder),
    ):
        assert run(command) == 65
        told = f"{folder} holds NaN or infinity in 1 of 23 tensors: decoder.bias; take an earlier"
        printed = capsys.readouterr().err
        assert printed.startswith(f"error: {told}")
        assert printed.count("\n") == 1
    assert not Path(output).exists()


def test_manifest_and_card_travel_along(folder, tmp_path) -> None:
    meta = {"progress": {"step": 7, "tokens_seen": 1234}}
    known = (Agreement("mimic", "PhysioNet 1.5.0", 99),)
    weights = read(folder)._replace(meta=meta, agreements=known, origin="/home/ann/runs/x")
    target = tmp_path / "notes"
    target.mkdir()
    write_huggingface(weights, target, "notes")
    manifest = json.loads((target / "manifest.json").read_text())
    assert (manifest["step"], manifest["tokens_seen"], manifest["source"]) == (7, 1234, "x")
    assert manifest["agreements"] == agreements.to_json(known)
    same = json.loads((folder / "manifest.json").read_text())["weights_sha256"]
    assert manifest["weights_sha256"] == same
    assert "jax" in manifest["tools"]
    card = (target / "README.md").read_text()
    for text in (
        "ByteLevel(add_prefix_space=True)",
        "| mimic | 99 | PhysioNet 1.5.0 |",
        "AutoModelForMaskedLM",
    ):
        assert text in card
    assert "/home" not in card + json.dumps(manifest)


def test_agreements_travel_through_every_format(folder, tmp_path) -> None:
    meta = {"progress": {"step": 7, "tokens_seen": 1234}, "tokenizer_reviewed": "f" * 64}
    known = (Agreement("mimic", "PhysioNet 1.5.0", 99), Agreement("notes"))
    source = tmp_path / "source"
    source.mkdir()
    write_huggingface(read(folder)._replace(meta=meta, agreements=known), source)
    convert(str(source), "orbax", tmp_path / "orbax")
    convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "back")
    conversion.save_pretrained(conversion.from_pretrained(tmp_path / "back"), tmp_path / "saved")
    for place in ("source", "back", "saved"):
        manifest = json.loads((tmp_path / place / "manifest.json").read_text())
        assert (manifest["agreements"], manifest["step"]) == (agreements.to_json(known), 7), place
        assert manifest["tokenizer_reviewed"] == meta["tokenizer_reviewed"], place
        assert read(tmp_path / place).agreements == known
    again = read(tmp_path / "back")
    with pytest.raises(InputError, match="the agreements of"):
        compare(again._replace(agreements=known[:1]), again)
    with pytest.raises(InputError, match="progress of"):
        compare(again._replace(meta={"progress": {"step": 8}}), again)


def test_names_in_errors_cannot_write_on_the_terminal() -> None:
    assert str(InputError("a\nb\x1b[2Jé")) == "a\\nb\\x1b[2Jé"


def test_a_tensor_in_two_shards_is_refused(folder) -> None:
    stored = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    bias = {"decoder.bias": stored["decoder.bias"] + 1}
    save_file(stored, folder / "model-1.safetensors")
    save_file(bias, folder / "model-2.safetensors")
    index = dict.fromkeys(stored, "model-1.safetensors") | {"decoder.bias": "model-2.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    with pytest.raises(InputError, match=r"holds decoder.bias, which another file"):
        read(folder)


def test_encoders_are_saved_as_encoders(folder, tmp_path) -> None:
    encoder = conversion.from_pretrained(folder, "encoder")
    conversion.save_pretrained(encoder, tmp_path / "encoder")
    values = json.loads((tmp_path / "encoder" / "config.json").read_text())
    assert values["architectures"] == ["ModernBertModel"]
    again = conversion.from_pretrained(tmp_path / "encoder", "encoder")
    assert same_bits(again.params, encoder.params)


def test_tokenizers_of_transformers_5_are_written_for_4_too(folder, tmp_path) -> None:
    source = tmp_path / "five"
    source.mkdir()
    (source / "tokenizer.json").write_bytes((folder / "tokenizer.json").read_bytes())
    names = {f"{role}_token": f"[{role.upper()}]" for role in ("cls", "sep", "pad", "mask", "unk")}
    values = {"backend": "tokenizers", "tokenizer_class": "TokenizersBackend", "is_local": True}
    values |= {"model_max_length": 10**30, "extra_special_tokens": []}
    (source / "tokenizer_config.json").write_text(json.dumps(values | names))
    conversion.save_pretrained(conversion.from_pretrained(folder), tmp_path / "saved", source)
    written = json.loads((tmp_path / "saved" / "tokenizer_config.json").read_text())
    assert written["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert written["model_max_length"] == 128
    assert not {"backend", "is_local", "extra_special_tokens"} & set(written)
    special = json.loads((tmp_path / "saved" / "special_tokens_map.json").read_text())
    assert special["mask_token"]["lstrip"] is True
    assert set(special) == set(names)


def test_pickles_need_torch_and_say_which_extra(folder, tmp_path, monkeypatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "torch" else find(name, *a)
    )
    file = tmp_path / "latest-rank0.pt"
    file.write_bytes(b"x")
    for source, to in ((file, "orbax"), (folder, "composer")):
        with pytest.raises(InputError, match=r"pip install 'bcmb-jax\[torch\]'"):
            convert(str(source), to, tmp_path / "out")
    assert convert(str(folder), "orbax", tmp_path / "out").logits is None


def test_command_line_errors_are_one_line(tmp_path) -> None:
    command = [sys.executable, "-m", "conversion.convert", "--to", "orbax"]
    done = subprocess.run(
        [*command, "--input", str(tmp_path), "--output", str(tmp_path / "out")],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
