# SPDX-License-Identifier: Apache-2.0
"""Small pickles that fill the memory, or never end; and how they are read.

python -m tests.parity.pickle_bombs FOLDER [NAME ...]
"""

import _codecs
import collections
import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers  # noqa: F401 - imported before it is measured

from conversion import torch_files, torch_models
from conversion.composer import read_composer
from conversion.config_json import config_json
from conversion.export import write_composer
from conversion.huggingface import read_huggingface
from tests.fixtures.bombs import LARGE, model_folder
from tests.fixtures.measured import Bomb, main
from tests.fixtures.tiny_model import TINY
from tests.fixtures.tiny_weights import random_weights

FILE, GOOD = "bad.pt", "latest-rank0.pt"


class Call:
    """Pickled as a call of a function, so that whoever reads it makes that call."""

    def __init__(self, function: object, *arguments: object):
        self.call = function, arguments

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def hexadecimal(times: int) -> object:
    """Return bytes that become 2^`times` as long when they are read."""
    value: object = b"a" * 1000
    for _ in range(times):
        value = Call(_codecs.encode, value, "hex")
    return value


def shared(depth: int) -> object:
    """Return ten lists of ten lists of …, each of which is written once."""
    value: object = ["a"] * 10
    for _ in range(depth):
        value = [value] * 10
    return value


def holding(payload: Callable[[], object]) -> Bomb:
    """Return a checkpoint with something in it that is not its model."""

    def make(folder: Path) -> None:
        checkpoint(folder, lambda tree: tree.update(rng=payload()))

    return make, lambda folder: read_composer(folder / FILE)


def checkpoint(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    write_composer(random_weights(), folder)
    tree: Any = torch_files.load(folder / GOOD)
    change(tree)
    torch.save(tree, folder / FILE)


def packed(folder: Path) -> None:
    """A pickle of 4 MB, packed to 4 kB."""
    write_composer(random_weights(), folder)
    with zipfile.ZipFile(folder / GOOD) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        for name, content in parts.items():
            if name.endswith("data.pkl"):
                info = zipfile.ZipInfo(name)
                info.compress_type = zipfile.ZIP_DEFLATED
                content = b"\x80\x02" + b"N0" * 2_000_000 + content[2:]
                archive.writestr(info, content, compresslevel=1)
            else:
                archive.writestr(name, content)


def many_lists(folder: Path) -> None:
    """A pickle of 100 MB of empty lists."""
    write_composer(random_weights(), folder)
    with zipfile.ZipFile(folder / GOOD) as archive:
        parts = {part.filename: archive.read(part) for part in archive.infolist()}
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        for name, content in parts.items():
            if name.endswith("data.pkl"):
                content = b"\x80\x02(" + b"]" * 100_000_000 + b"l."
            archive.writestr(name, content)


def many_small_lists(folder: Path) -> None:
    """More empty lists than a pickle may have parts."""
    with zipfile.ZipFile(folder / FILE, "w") as archive:
        size = torch_files.MOST_PARTS + 10
        archive.writestr("archive/data.pkl", b"\x80\x02(" + b"]" * size + b"l.")
        archive.writestr("archive/version", "3\n")


def old_format(folder: Path) -> None:
    """The format before zip archives, with a storage that claims 10^12 numbers."""
    stream = io.BytesIO()
    torch.save({"a": torch.ones(1000)}, stream, _use_new_zipfile_serialization=False)
    content = stream.getvalue().replace(b"M\xe8\x03", b"J\xff\xff\xff\x7f"[:3])
    (folder / FILE).write_bytes(content)


def strides(folder: Path) -> None:
    """One number that claims to be a table of 10^12."""

    def change(tree: dict[str, Any]) -> None:
        model = tree["state"]["model"]
        for name in model:
            model[name] = torch.ones(1).expand(10**6, 10**6)

    checkpoint(folder, change)


def sizes(**changes: int) -> Bomb:
    def change(tree: dict[str, Any]) -> None:
        content = tree["state"]["integrations"]["huggingface"]["model"]["config"]["content"]
        content.update(changes)

    return lambda folder: checkpoint(folder, change), lambda folder: read_composer(folder / FILE)


def bin_file(folder: Path, content: object) -> None:
    model_folder(folder)
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")


def bert(folder: Path) -> None:
    values = config_json(TINY, {}) | {"num_hidden_layers": LARGE, "layer_types": None}
    (folder / "config.json").write_text(json.dumps(values | {"model_type": "bert"}))


def load_with_transformers(folder: Path) -> object:
    return torch_models.load_model(folder, "encoder")


BOMBS: dict[str, Bomb] = {
    "pickle hexadecimal": holding(lambda: hexadecimal(30)),
    "pickle bytearray": holding(lambda: Call(bytearray, 10**12)),
    "pickle set": holding(lambda: Call(set, Call(bytearray, 10**10))),
    "pickle counter": holding(lambda: Call(collections.Counter, Call(bytearray, 10**10))),
    "pickle tensor": holding(lambda: Call(torch.Tensor, 10**6, 10**6)),
    "pickle shared lists": holding(lambda: shared(12)),
    "pickle tensor often": holding(lambda: [torch.ones(10**6)] * 10**5),
    "pickle packed": (packed, lambda folder: read_composer(folder / FILE)),
    "pickle lists": (many_lists, lambda folder: read_composer(folder / FILE)),
    "pickle small lists": (many_small_lists, lambda folder: read_composer(folder / FILE)),
    "pickle old format": (old_format, lambda folder: read_composer(folder / FILE)),
    "pickle strides": (strides, lambda folder: read_composer(folder / FILE)),
    "pickle layers": sizes(num_hidden_layers=LARGE),
    "pickle vocabulary": sizes(vocab_size=10**12),
    "bin hexadecimal": (
        lambda folder: bin_file(folder, {"decoder.bias": hexadecimal(30)}),
        read_huggingface,
    ),
    "bin hexadecimal, transformers": (
        lambda folder: bin_file(folder, {"decoder.bias": hexadecimal(30)}),
        load_with_transformers,
    ),
    "config.json layers, transformers": (bert, load_with_transformers),
}
"""Makers and readers of files, by what the file claims."""

assert pickle.loads(pickle.dumps(hexadecimal(1))) == b"61" * 1000

if __name__ == "__main__":
    main(BOMBS)
