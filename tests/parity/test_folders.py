# SPDX-License-Identifier: Apache-2.0
"""Folders that transformers saves load here, and ours load there, as one and the same model."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import conversion
from bcmb_jax import commands
from bcmb_jax.commands.fill_mask import encode_clozes
from bcmb_jax.data.synthetic import DEMO_CLOZES, train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from conversion import huggingface
from conversion.config_json import ARCHITECTURES, config_json
from conversion.convert import convert
from conversion.verify import compare_with_transformers
from conversion.weights import read
from tests.fixtures.tiny_weights import edit_config
from tests.fixtures.torch_models import (
    NARROW,
    random_rows,
    torch,
    torch_logits,
    torch_model,
    transformers,
)
from tests.parity.test_forward import LOGIT_TOLERANCE

save_file = pytest.importorskip("safetensors.torch").save_file  # which imports torch

pytestmark = pytest.mark.torch
ROWS = random_rows([90], [31], length=96)
REAL = ROWS[1] > 0


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder as transformers writes it."""
    folder = tmp_path_factory.mktemp("saved") / "theirs"
    model = torch_model()
    model.save_pretrained(folder)
    return folder, torch_logits(model, *ROWS)[REAL]


def test_their_folder_gives_their_logits(saved) -> None:
    folder, logits = saved
    model = conversion.from_pretrained(folder, precision="fp32")
    assert np.abs(np.asarray(model(*ROWS))[REAL] - logits).max() <= LOGIT_TOLERANCE


def test_our_folder_gives_their_logits_there(saved, tmp_path) -> None:
    folder, logits = saved
    found = convert(str(folder), "orbax", tmp_path / "orbax")
    assert found.logits.difference <= LOGIT_TOLERANCE
    found = convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "ours")
    assert found.logits.difference <= LOGIT_TOLERANCE
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / "ours")
    np.testing.assert_array_equal(torch_logits(theirs.eval(), *ROWS)[REAL], logits)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_folders_are_read_exactly(saved, tmp_path, dtype) -> None:
    folder = tmp_path / "half"
    torch_model().to(getattr(torch, dtype)).save_pretrained(folder, max_shard_size="20KB")
    assert (folder / "model.safetensors.index.json").is_file()
    ours = conversion.from_pretrained(folder, precision="fp32")
    model = transformers.ModernBertForMaskedLM.from_pretrained(folder, dtype=torch.float32)
    theirs = torch_logits(model.eval(), *ROWS)
    assert np.abs(np.asarray(ours(*ROWS)) - theirs)[REAL].max() <= LOGIT_TOLERANCE
    found = convert(str(folder), "orbax", tmp_path / "orbax")
    assert found.logits.difference <= LOGIT_TOLERANCE


def test_their_encoder_alone(tmp_path) -> None:
    model = torch_model().model
    model.save_pretrained(tmp_path / "encoder")
    ours = conversion.from_pretrained(tmp_path / "encoder", "encoder", precision="fp32")
    ids, mask = (torch.from_numpy(x.astype(np.int64)) for x in ROWS)
    with torch.no_grad():
        theirs = model(ids, mask).last_hidden_state.numpy()
    assert np.abs(np.asarray(ours(*ROWS)) - theirs)[REAL].max() <= LOGIT_TOLERANCE
    conversion.save_pretrained(ours, tmp_path / "ours")
    again = transformers.AutoModel.from_pretrained(tmp_path / "ours")
    for name, x in again.named_parameters():
        assert torch.equal(x, model.get_parameter(name)), name


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["sequence_classification", "token_classification"])
def test_their_classifiers(kind, pooling, tmp_path) -> None:
    labels = {0: "no", 1: "yes", 2: "perhaps"}
    values = config_json(NARROW, {}) | {"classifier_pooling": pooling, "id2label": labels}
    torch.manual_seed(0)
    make = getattr(transformers, ARCHITECTURES[kind])
    model = make(transformers.ModernBertConfig(**values)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    model.save_pretrained(tmp_path / "theirs")
    ours = conversion.from_pretrained(tmp_path / "theirs", kind, precision="fp32")
    assert ours.head.labels == ("no", "yes", "perhaps")
    assert ours.head.pooling == pooling
    ids, mask = (torch.from_numpy(x.astype(np.int64)) for x in ROWS)
    with torch.no_grad():
        theirs = model(ids, mask).logits.numpy()
    got = np.asarray(ours(*ROWS))
    got, theirs = (got[REAL], theirs[REAL]) if kind[0] == "t" else (got[:, 0], theirs)
    assert np.abs(theirs).max() > 0.1
    assert np.abs(got - theirs).max() <= LOGIT_TOLERANCE
    convert(str(tmp_path / "theirs"), "orbax", tmp_path / "orbax")
    found = convert(str(tmp_path / "orbax"), "huggingface", tmp_path / "back")
    assert found.logits.error <= 1e-6
    again = make.from_pretrained(tmp_path / "back")
    assert again.config.id2label == labels
    assert again.config.classifier_pooling == pooling
    for name, x in again.named_parameters():
        assert torch.equal(x, model.get_parameter(name)), name


def test_a_config_that_is_misread_is_seen(saved, tmp_path, monkeypatch) -> None:
    """transformers reads the folder itself, so that our reading of it is under test too."""
    shutil.copytree(saved[0], tmp_path / "copy")
    edit_config(tmp_path / "copy", local_attention=..., sliding_window=8)
    commands.main("convert", "--verify", str(tmp_path / "copy"))
    assert read(tmp_path / "copy").config.window == 8
    edit_config(tmp_path / "copy", local_attention=64)
    with pytest.raises(InputError, match="sliding_window is 8 and local_attention 64"):
        read(tmp_path / "copy")
    weights = read(saved[0])
    other = dataclasses.replace(weights.config, local_attention=32)
    with pytest.raises(InputError, match="logits on"):
        compare_with_transformers(weights._replace(config=other), weights.folder)


def test_any_model_is_compared_on_request(saved, capsys) -> None:
    commands.main("convert", "--verify", str(saved[0]))
    printed = capsys.readouterr().out
    assert "worst logit difference from transformers: " in printed
    assert "in float64" in printed


TEXTS = (
    *DEMO_CLOZES,
    "[MASK]",
    "no space before[MASK]and after",
    "two  spaces  [MASK]  [MASK] .\n\n[MASK]\tna\u00efve 5 \u00b5g [CLS] [unused0]",
)


@pytest.mark.parametrize("which", ["demo", "modernbert"])
def test_clozes_are_tokenized_as_transformers_does(which, tmp_path, request) -> None:
    if which == "demo":
        source, size = tmp_path / "source", 400
        train_tokenizer(DEMO_CLOZES, size, source)
    else:
        source, size = request.getfixturevalue("shared") / "data" / "tokenizers" / which, 50_368
    folder = tmp_path / "model"
    config = dataclasses.replace(NARROW, vocab_size=size, max_position_embeddings=8192)
    torch_model(config).save_pretrained(tmp_path / "theirs")
    model = conversion.from_pretrained(tmp_path / "theirs")
    conversion.save_pretrained(model, folder, source)
    peer = transformers.AutoTokenizer.from_pretrained(folder)
    ours = load_tokenizer(str(folder))
    rows = encode_clozes(ours, TEXTS)
    assert [row.tolist() for row in rows] == peer(list(TEXTS))["input_ids"]
    special = {role: getattr(peer, f"{role}_token_id") for role in ("cls", "sep", "pad", "mask")}
    assert special == {role: getattr(ours.special, role) for role in special}
    assert peer.model_max_length == 8192
    config = json.loads((folder / "config.json").read_text())
    assert all(config[f"{role}_token_id"] == special[role] for role in ("cls", "sep", "pad"))


def test_torch_tokens_are_checked_too(saved) -> None:
    model = conversion.from_pretrained(saved[0], precision="fp32")
    ids = torch.from_numpy(ROWS[0].astype(np.int64))
    np.testing.assert_array_equal(model(ids), model(ROWS[0]))
    ids[0, 3] = model.config.vocab_size
    with pytest.raises(InputError, match=f"to {model.config.vocab_size}; the model has"):
        model(ids)


def in_layout(saved, folder: Path, layout: str) -> Path:
    """Copy the saved model in another layout, and return the file that transformers reads."""
    model = transformers.AutoModelForMaskedLM.from_pretrained(saved[0])
    model.save_pretrained(folder, max_shard_size="20KB" if layout == "shards" else "1GB")
    tensors = {name: x for name, x in model.state_dict().items() if name != "decoder.weight"}
    old = {name: x + 1 for name, x in tensors.items()}
    if layout == "shards":
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        torch.save(old, folder / "pytorch_model.bin")
        return folder / index["weight_map"]["model.embeddings.tok_embeddings.weight"]
    if layout == "bin":
        (folder / "model.safetensors").unlink()
        torch.save(tensors, folder / "pytorch_model.bin")
        return folder / "pytorch_model.bin"
    torch.save(old, folder / "model-00001-of-00001.bin")
    index = {"weight_map": dict.fromkeys(old, "model-00001-of-00001.safetensors")}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(old, folder / "model-00001-of-00001.safetensors", {"format": "pt"})
    return folder / "model.safetensors"


@pytest.mark.parametrize("to", ["huggingface", "orbax", "composer"])
@pytest.mark.parametrize("layout", ["single", "shards", "bin"])
def test_a_mutation_of_the_chosen_file_is_seen(saved, tmp_path, monkeypatch, layout, to) -> None:
    """One number of the token table, of a token that no verification draws a logit of."""
    file = in_layout(saved, tmp_path / "source", layout)
    convert(str(tmp_path / "source"), to, tmp_path / "right")
    read_file = huggingface._read_file

    def misread(path: Path) -> dict[str, np.ndarray]:
        tensors = read_file(path)
        if path == file:
            table = tensors["model.embeddings.tok_embeddings.weight"].copy()
            table[-1, -1] = np.nextafter(table[-1, -1], np.float32(9))
            tensors["model.embeddings.tok_embeddings.weight"] = table
        return tensors

    monkeypatch.setattr(huggingface, "_read_file", misread)
    with pytest.raises(InputError, match=r"1 of \d+ tensors are not what transformers reads from"):
        convert(str(tmp_path / "source"), to, tmp_path / "wrong")
    assert not (tmp_path / "wrong").exists()
    with pytest.raises(InputError, match=r"the worst model\.embeddings\.tok_embeddings\.weight"):
        commands.main("convert", "--verify", str(tmp_path / "source"))


def test_a_file_that_is_not_the_chosen_one_is_seen(saved, tmp_path, monkeypatch) -> None:
    """The order of layouts that led to old weights, declared equal to the bit."""
    in_layout(saved, tmp_path / "source", "single")
    old = (huggingface.LAYOUTS[1], huggingface.LAYOUTS[0], *huggingface.LAYOUTS[2:])
    monkeypatch.setattr(huggingface, "LAYOUTS", old)
    for to in ("huggingface", "orbax"):
        with pytest.raises(InputError, match="are not what transformers reads from"):
            convert(str(tmp_path / "source"), to, tmp_path / "out")


def test_rounded_exports_are_compared_with_their_input(saved, tmp_path) -> None:
    for dtype in ("bfloat16", "float16"):
        found = convert(str(saved[0]), "huggingface", tmp_path / dtype, dtype=dtype)
        assert found.logits.error <= 1e-6


def test_cases_that_were_found_convert_as_transformers_reads_them(shared, tmp_path) -> None:
    folders = sorted((shared / "cases" / "24-stale-shards").glob("*/"))
    folders.append(shared / "cases" / "16-safetensors" / "tied-decoder-only")
    for folder in filter(Path.is_dir, folders):
        convert(str(folder), "huggingface", tmp_path / folder.name)
        theirs = transformers.AutoModelForMaskedLM.from_pretrained(folder).state_dict()
        ours = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path / folder.name)
        for name, x in ours.state_dict().items():
            assert torch.equal(x, theirs[name]), (folder.name, name)


@pytest.mark.parametrize("kind", ["masked_lm", "encoder"])
def test_silu_is_their_silu(kind, tmp_path) -> None:
    config = dataclasses.replace(NARROW, hidden_activation="silu")
    torch.manual_seed(3)
    make = getattr(transformers, ARCHITECTURES[kind])
    model = make(transformers.ModernBertConfig(**config_json(config, {}))).eval()
    ids, mask = (torch.from_numpy(x.astype(np.int64)) for x in ROWS)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        theirs = model(ids, mask)[0].numpy()[REAL]
    model.save_pretrained(tmp_path / "theirs")
    ours = conversion.from_pretrained(tmp_path / "theirs", kind, precision="fp32")
    assert np.abs(np.asarray(ours(*ROWS))[REAL] - theirs).max() <= LOGIT_TOLERANCE
    convert(str(tmp_path / "theirs"), "huggingface", tmp_path / "back")
    edit_config(tmp_path / "theirs", hidden_activation="gelu")
    wrong = conversion.from_pretrained(tmp_path / "theirs", kind, precision="fp32")
    assert np.abs(np.asarray(wrong(*ROWS))[REAL] - theirs).max() > 100 * LOGIT_TOLERANCE
