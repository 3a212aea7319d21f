# SPDX-License-Identifier: Apache-2.0
"""Hugging Face's config.json: both dialects, and what does not exist here."""

import dataclasses
import json

import numpy as np
import pytest

import conversion
from bcmb_jax.errors import InputError
from bcmb_jax.model.heads import Head
from conversion.config_json import config_json, read_config
from conversion.weights import read
from tests.fixtures.tiny_weights import IDS, TINY, edit_config


@pytest.mark.parametrize(("layers", "every"), [(1, 1), (3, 3), (4, 3), (7, 2)])
def test_both_dialects_are_read_alike(tmp_path, layers, every) -> None:
    config = dataclasses.replace(TINY, num_hidden_layers=layers, global_attn_every_n_layers=every)
    values = config_json(config, IDS) | {"something_new": 1}
    of_four = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
    of_five = ("layer_types", "rope_parameters")
    for left_out in ((), of_four, of_five):
        kept = {key: value for key, value in values.items() if key not in left_out}
        (tmp_path / "config.json").write_text(json.dumps(kept))
        assert read_config(tmp_path)[:2] == (config, IDS), left_out


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "bert"}, "model_type 'bert'"),
        ({"model_type": ...}, "model_type None"),
        ({"attention_bias": True}, "attention_bias True"),
        ({"mlp_bias": True}, "mlp_bias True"),
        ({"norm_bias": True}, "norm_bias True"),
        ({"hidden_activation": "relu"}, "hidden_activation 'relu'"),
        ({"decoder_bias": False}, "decoder_bias False"),
        ({"tie_word_embeddings": False}, "tie_word_embeddings False"),
        ({"layer_types": ["full_attention"] * 2 + ["sliding_attention"]}, "layer_types"),
        ({"layer_types": ["full_attention"]}, "layer_types"),
        ({"global_rope_theta": 9.0}, "global_rope_theta 9.0"),
        (
            {"rope_parameters": {"full_attention": {"rope_type": "yarn", "rope_theta": 5000.0}}},
            "'yarn'",
        ),
        ({"num_attention_heads": 3}, "head size"),
    ],
)
def test_configs_that_do_not_exist_here_are_refused(folder, changes, message) -> None:
    edit_config(folder, **changes)
    with pytest.raises(InputError, match=message) as error:
        conversion.from_pretrained(folder)
    assert "config.json" in str(error.value)
    assert "\n" not in str(error.value)


def test_exported_config_is_for_fine_tuning_too(folder) -> None:
    values = json.loads((folder / "config.json").read_text())
    assert values["attention_dropout"] == 0.0  # although training drops 10 %
    assert values["classifier_pooling"] == "mean"
    assert values["architectures"] == ["ModernBertForMaskedLM"]
    assert values["tie_word_embeddings"] is True
    special = json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    ids = {entry["content"]: entry["id"] for entry in special}
    assert values["cls_token_id"] == values["bos_token_id"] == ids["[CLS]"]
    assert values["sep_token_id"] == values["eos_token_id"] == ids["[SEP]"]
    assert values["pad_token_id"] == ids["[PAD]"]


def test_labels_and_pooling_of_a_classifier(tmp_path) -> None:
    head = Head("token_classification", ("O", "B-DRUG", "I-DRUG"), "cls", "regression")
    values = config_json(TINY, IDS, head)
    assert values["label2id"] == {"O": 0, "B-DRUG": 1, "I-DRUG": 2}
    (tmp_path / "config.json").write_text(json.dumps(values))
    said = read_config(tmp_path)
    classifier = {"classifier.weight": np.zeros((3, 16)), "head.norm.weight": np.zeros(16)}
    assert said.head(classifier, "x") == head
    assert said.head({"decoder.bias": np.zeros(1)}, "x") == Head("masked_lm", (), "cls")
    assert said.head({}, "x").kind == "encoder"
    edit_config(tmp_path, id2label=...)
    assert read_config(tmp_path).head(classifier, "x").labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    edit_config(tmp_path, architectures=["ModernBertForQuestionAnswering"])
    with pytest.raises(InputError, match="'ModernBertForQuestionAnswering'; only ModernBertFor"):
        read_config(tmp_path).head(classifier, "x")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architectures": {}}, None),
        ({"id2label": ["a"]}, "not laid out"),
        ({"cls_token_id": "x"}, "not laid out"),
        ({"global_rope_theta": "x"}, "global_rope_theta|not laid out"),
        ({"num_hidden_layers": 3.0}, "not laid out|num_hidden_layers"),
    ],
)
def test_any_value_may_stand_in_a_config(folder, changes, message) -> None:
    edit_config(folder, **changes)
    if message is None:
        assert read(folder).head.kind == "masked_lm"
        return
    with pytest.raises(InputError, match=message) as error:
        read(folder)
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
