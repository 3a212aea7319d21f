# SPDX-License-Identifier: Apache-2.0
"""Folders that transformers saves load here, and ours load there, as one and the same model."""

import dataclasses
import json
import shutil

import numpy as np
import pytest

import conversion
from bcmb_jax.commands.fill_mask import encode_clozes
from bcmb_jax.data.synthetic import DEMO_CLOZES, train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from conversion.config_json import ARCHITECTURES, config_json
from conversion.convert import convert, main
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
    main(["--verify", str(tmp_path / "copy")])
    assert read(tmp_path / "copy").config.window == 8
    edit_config(tmp_path / "copy", local_attention=64)
    with pytest.raises(InputError, match="sliding_window is 8 and local_attention 64"):
        read(tmp_path / "copy")
    weights = read(saved[0])
    other = dataclasses.replace(weights.config, local_attention=32)
    with pytest.raises(InputError, match="logits on"):
        compare_with_transformers(weights._replace(config=other), weights.folder)


def test_any_model_is_compared_on_request(saved, capsys) -> None:
    main(["--verify", str(saved[0])])
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
    torch_model(dataclasses.replace(NARROW, vocab_size=size)).save_pretrained(tmp_path / "theirs")
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
