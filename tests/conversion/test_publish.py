# SPDX-License-Identifier: Apache-2.0
"""A conversion overwrites only an earlier one, and leaves nothing when it fails."""

from pathlib import Path

import pytest

import conversion
from bcmb_jax import commands
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.errors import InputError
from conversion.convert import convert
from conversion.export import check_free_space
from conversion.weights import read
from tests.fixtures.tiny_weights import edit_config, same_bits


def test_saving_is_all_or_nothing(folder, tmp_path, tiny_tokenizer) -> None:
    model = conversion.from_pretrained(folder)
    target = tmp_path / "new" / "saved"
    conversion.save_pretrained(model, target)
    assert same_bits(read(target).params, read(folder).params)
    with pytest.raises(InputError, match="exists"):
        conversion.save_pretrained(model, target)
    conversion.save_pretrained(model, target, tiny_tokenizer, overwrite=True)
    (target / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes.txt"):
        conversion.save_pretrained(model, target, overwrite=True)
    assert (target / "notes.txt").read_text() == "mine"
    train_tokenizer(["too many"], 301, tmp_path / "large")
    with pytest.raises(InputError, match="301 tokens and the model 300"):
        conversion.save_pretrained(model, tmp_path / "new" / "other", tmp_path / "large")
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["saved"]


def test_nothing_but_an_earlier_conversion_is_replaced(folder, tmp_path, monkeypatch) -> None:
    for output in (folder, tmp_path):
        with pytest.raises(InputError, match="holds the input"):
            convert(str(folder), "orbax", output, overwrite=True)
    for name in ("ep0-ba8-rank0.pt", "tokenized_notes.csv"):
        (tmp_path / "other").mkdir(exist_ok=True)
        (tmp_path / "other" / name).write_text("mine")
        with pytest.raises(InputError, match=name):
            convert(str(folder), "orbax", tmp_path / "other", overwrite=True)
        (tmp_path / "other" / name).unlink()
    convert(str(folder), "orbax", tmp_path / "out")
    rename = Path.rename

    def fails_once(self, target):
        if self.name == "new":
            raise OSError("no")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", fails_once)
    with pytest.raises(OSError, match="no"):
        convert(str(folder), "orbax", tmp_path / "out", overwrite=True)
    assert same_bits(read(tmp_path / "out").params, read(folder).params)
    with pytest.raises(OSError, match="no"):
        convert(str(folder), "orbax", tmp_path / "a" / "b" / "c")
    assert not (tmp_path / "a").exists()


def test_conversion_fails_before_it_writes(folder, tmp_path) -> None:
    output = tmp_path / "out"
    edit_config(folder, vocab_size=239)
    with pytest.raises(InputError, match=r"decoder.bias is \[300\] and should be \[239\]"):
        commands.main("convert", "--input", str(folder), "--to", "orbax", "--output", str(output))
    assert [p.name for p in tmp_path.iterdir()] == ["huggingface"]
    with pytest.raises(InputError, match="free"):
        check_free_space(output / "deeper", 2**62)
    with pytest.raises(InputError, match="gguf"):
        commands.main("convert", "--input", "x", "--to", "gguf", "--output", "y")
    with pytest.raises(InputError, match="give a folder"):
        convert(str(folder), "composer", tmp_path / "x.pt")
