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
        ({"rope_parameters": {"full_attention": {"type": "linear", "factor": 2.0}}}, "'linear'"),
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
        ({"id2label": ["a"]}, "id2label is not an object"),
        ({"id2label": {"a": "0"}}, "id2label is not an object"),
        ({"cls_token_id": "x"}, "cls_token_id is 'x'"),
        ({"sep_token_id": [7, 8]}, r"sep_token_id is \[7, 8\]"),
        ({"pad_token_id": 7.0}, r"pad_token_id is 7\.0"),
        ({"pad_token_id": True}, "pad_token_id is True"),
        ({"global_rope_theta": "x"}, "global_rope_theta|not laid out"),
        ({"num_hidden_layers": 3.0}, r"num_hidden_layers is 3\.0; it must be int"),
        ({"vocab_size": True}, "vocab_size is True; it must be int"),
        ({"norm_eps": "1e-5"}, "norm_eps is '1e-5'; it must be float"),
        ({"hidden_activation": None}, "hidden_activation is None; it must be str"),
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


FULL, SLIDING = ({"rope_type": "default", "rope_theta": theta} for theta in (5000.0, 700.0))


@pytest.mark.parametrize(
    "malformed",
    [
        FULL,
        {"full_attention": FULL, "sliding_attention": None},
        {"full_attention": FULL, "sliding_attention": 700.0},
        {"full_attention": FULL, "sliding_attn": SLIDING},
        {"full_attention": FULL, "sliding_attention": SLIDING, "rope_theta": 5000.0},
        [FULL, SLIDING],
        5000.0,
        "default",
    ],
)
def test_rope_parameters_that_transformers_would_not_read_are_refused(folder, malformed) -> None:
    edit_config(folder, rope_parameters=malformed)
    with pytest.raises(InputError, match="rope_parameters must hold an object for full_attention"):
        read(folder)


@pytest.mark.parametrize("empty", [None, {}, {"full_attention": {}, "sliding_attention": {}}])
def test_rope_parameters_may_say_nothing(folder, empty) -> None:
    edit_config(folder, rope_parameters=empty)
    assert read(folder).config == TINY


def test_the_activation_of_the_encoder_travels(folder, tmp_path) -> None:
    edit_config(folder, hidden_activation="silu")
    assert read(folder).config == dataclasses.replace(TINY, hidden_activation="silu")
    conversion.save_pretrained(conversion.from_pretrained(folder), tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert (values["hidden_activation"], values["classifier_activation"]) == ("silu", "gelu")
    assert read(tmp_path / "saved").config.hidden_activation == "silu"


REFUSED = {
    "attention-bias": "attention_bias True",
    "float-sizes": "hidden_size is 64.0",
    "id2label-list": "id2label is not an object",
    "ids-list": "sep_token_id is",
    "ids-str": "cls_token_id is '50281'",
    "layer-types-conflict": "layer_types",
    "layer-types-odd": "layer_types",
    "layer-types-shift": "layer_types",
    "layer-types-short": "layer_types",
    "local-minus1": "local_rope_theta",
    "no-model-type": "model_type None",
    "norm-bias-null": "norm_bias None",
    "rope-scaling-default": "rope_scaling",
    "rope-scaling-linear": "rope_scaling",
    "sliding-window-128": "sliding_window",
    "sliding-window-null": "config.json",
    "str-sizes": "hidden_size is '64'",
    "v5-conflict": "global_rope_theta",
    "v5-flat": "rope_parameters must hold",
    "v5-flat-both": "rope_parameters must hold",
    "v5-null-inner": "rope_parameters must hold",
    "window-minus1": "local_attention",
    "yarn-v5": "'yarn'",
}
REFUSED_HEADS = {
    "classifier-silu": "classifier_activation",
    "classifier-silu-encoder": "classifier_activation",
    "decoder-bias-false": "decoder_bias",
    "tie-null": "tie_word_embeddings",
}


def test_the_configs_that_were_found(shared) -> None:
    """Every config is read, or refused in one line that names its key."""
    seen = set()
    for file in sorted((shared / "cases" / "17-config").glob("*/config.json")):
        case = file.parent.name
        seen.add(case)
        if case in REFUSED:
            with pytest.raises(InputError, match=REFUSED[case]) as error:
                read_config(file.parent)
            assert "\n" not in str(error.value)
            continue
        content = read_config(file.parent)
        content.check_head("encoder")
        if case in REFUSED_HEADS:
            with pytest.raises(InputError, match=REFUSED_HEADS[case]):
                content.check_head("masked_lm")
        elif not case.startswith("pooling"):
            content.check_head("masked_lm")
        assert content.config.hidden_activation == ("silu" if case == "hidden-silu" else "gelu")
    assert seen >= REFUSED.keys() | REFUSED_HEADS.keys()
