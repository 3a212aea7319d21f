# SPDX-License-Identifier: Apache-2.0
"""Folders with several layouts, tied tables and wrapped names: read as transformers reads them."""

import itertools
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from bcmb_jax.errors import InputError
from conversion.weights import read
from tests.fixtures.tiny_weights import edit_config, same_bits

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
TABLE = "model.embeddings.tok_embeddings.weight"


@pytest.fixture
def folder(folder) -> Path:
    """A Hugging Face folder whose weights a test may change: no manifest holds their digest."""
    (folder / "manifest.json").unlink()
    return folder


def put_single(folder: Path, stored: dict, bias: float) -> None:
    save_file(stored | {"decoder.bias": stored["decoder.bias"] * 0 + bias}, folder / SINGLE)


def put_shards(folder: Path, stored: dict, bias: float, present: bool = True) -> None:
    """Write an index and two shards, which may be missing."""
    stored = stored | {"decoder.bias": stored["decoder.bias"] * 0 + bias}
    names = {}
    for number in range(2):
        part = dict(itertools.islice(stored.items(), number, None, 2))
        file = f"model-0000{number + 1}-of-00002.safetensors"
        names |= dict.fromkeys(part, file)
        if present:
            save_file(part, folder / file)
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": names}))


def bias_of(folder: Path) -> float:
    (bias,) = set(read(folder).params["decoder.bias"].tolist())
    return bias


@pytest.mark.parametrize("order", [("shards", "single"), ("single", "shards")])
def test_one_file_beside_shards_is_read_alone(folder, order, caplog) -> None:
    stored = load_file(folder / SINGLE)
    for number, layout in enumerate(order):  # the second is the newer one
        {"single": put_single, "shards": put_shards}[layout](folder, stored, number)
    assert bias_of(folder) == order.index("single")
    assert f"{SINGLE} is read, as transformers does; {INDEX} beside it is not" in caplog.text


def test_one_file_beside_an_index_without_shards_is_read(folder) -> None:
    put_shards(folder, load_file(folder / SINGLE), 1, present=False)
    put_single(folder, load_file(folder / SINGLE), 2)
    assert bias_of(folder) == 2


@pytest.mark.parametrize("other", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
@pytest.mark.parametrize("layout", ["single", "shards"])
def test_safetensors_beside_pickles_are_read(folder, layout, other, caplog) -> None:
    stored = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    {"single": put_single, "shards": put_shards}[layout](folder, stored, 2)
    (folder / other).write_bytes(b"nobody reads this")
    assert bias_of(folder) == 2
    assert f"{other} beside it is not" in caplog.text


def test_shards_alone_are_read_and_nothing_is_said(folder, caplog) -> None:
    stored = load_file(folder / SINGLE)
    (folder / SINGLE).unlink()
    put_shards(folder, stored, 3)
    save_file({"old": np.ones(2)}, folder / "model-00003-of-00003.safetensors")
    assert bias_of(folder) == 3
    assert "beside it" not in caplog.text


def test_the_cases_that_were_found(shared, caplog) -> None:
    expected = {
        "bin-and-safetensors": 2.0,
        "bin-index-beside": 2.0,
        "index-with-old-shards": 2.0,
        "index-without-shards": 2.0,
        "new-shards-beside-old-single": 1.0,
    }
    for name, bias in expected.items():
        caplog.clear()
        assert bias_of(shared / "cases" / "24-stale-shards" / name) == bias
        assert "beside it is not" in caplog.text


@pytest.mark.parametrize("prefix", ["", "decoder and encoder"])
def test_a_tied_table_may_be_stored_as_the_decoder_alone(folder, prefix) -> None:
    before = read(folder).params
    stored = load_file(folder / SINGLE)
    table = stored.pop(TABLE)
    stored["decoder.weight"] = table
    if prefix:  # beside the table itself, as save_pretrained of an untied copy writes it
        stored[TABLE] = table
    save_file(stored, folder / SINGLE)
    assert same_bits(read(folder).params, before)


def test_neither_name_of_a_tied_table_is_said_by_name(folder) -> None:
    stored = load_file(folder / SINGLE)
    del stored[TABLE]
    save_file(stored, folder / SINGLE)
    with pytest.raises(InputError, match=f"1 missing: {TABLE}"):
        read(folder)


@pytest.mark.parametrize(
    ("word", "wrapper", "where"),
    [
        ("module.", "DistributedDataParallel", ""),
        ("_orig_mod.", "torch.compile", ""),
        ("_orig_mod.", "torch.compile", "model."),
        ("_fsdp_wrapped_module.", "FullyShardedDataParallel", "model.layers.1."),
        ("_checkpoint_wrapped_module.", "activation checkpointing", "model.layers.2."),
        ("base_model.model.", "PEFT", ""),
    ],
)
def test_wrappers_are_named(folder, word, wrapper, where) -> None:
    stored = load_file(folder / SINGLE)
    renamed = {
        where + word + name.removeprefix(where) if name.startswith(where) else name: x
        for name, x in stored.items()
    }
    number = sum(name.startswith(where) for name in stored)
    save_file(renamed, folder / SINGLE)
    with pytest.raises(InputError) as error:
        read(folder)
    message = str(error.value)
    assert f"{number} of 23 names of tensors hold {word!r}" in message
    assert wrapper in message
    assert "missing" not in message


def test_stored_names_and_untied_encoders_that_were_found(shared) -> None:
    cases = shared / "cases" / "16-safetensors"
    tied = read(cases / "tied-decoder-only")
    there = load_file(cases / "tied-decoder-only" / SINGLE)
    assert same_bits({TABLE: tied.params[TABLE]}, {TABLE: there["decoder.weight"]})
    assert read(cases / "untied-encoder").head.kind == "encoder"
    for case, wrapper in (("_orig_mod_", "torch.compile"), ("module_", "DistributedDataParallel")):
        with pytest.raises(InputError, match=wrapper):
            read(cases / f"prefix-{case}")


HEADS_ONLY = {
    "tie_word_embeddings": False,
    "decoder_bias": False,
    "classifier_bias": True,
    "classifier_activation": "silu",
}


@pytest.mark.parametrize("key", HEADS_ONLY)
def test_keys_of_heads_do_not_matter_to_an_encoder(folder, tmp_path, key) -> None:
    edit_config(folder, **{key: HEADS_ONLY[key]})
    with pytest.raises(InputError, match=f"config.json has {key} {HEADS_ONLY[key]!r}; only"):
        read(folder)
    encoder = shutil.copytree(folder, tmp_path / "encoder")
    stored = load_file(folder / SINGLE)
    alone = {name: x for name, x in stored.items() if name.startswith("model.")}
    save_file(alone, encoder / SINGLE)
    assert read(encoder).head.kind == "encoder"
    # A classifier has no decoder, but the head's own dense layer.
    stored.pop("decoder.bias")
    stored |= {"classifier.weight": np.ones((2, 16), np.float32)}
    stored |= {"classifier.bias": np.ones(2, np.float32)}
    save_file(stored, folder / SINGLE)
    edit_config(folder, architectures=["ModernBertForTokenClassification"])
    if key in ("tie_word_embeddings", "decoder_bias"):
        assert read(folder).head.kind == "token_classification"
    else:
        with pytest.raises(InputError, match=f"config.json has {key}"):
            read(folder)
