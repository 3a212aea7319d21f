# SPDX-License-Identifier: Apache-2.0
"""Every baseline architecture, from a folder with random weights, through tasks and speed."""

import json

import numpy as np
import pytest

pytest.importorskip("torch", reason="needs the extra [torch]")
transformers = pytest.importorskip("transformers")

from bcmb_jax import commands  # noqa: E402
from bcmb_jax.data.synthetic import train_tokenizer  # noqa: E402
from bcmb_jax.errors import InputError  # noqa: E402
from bcmb_jax.evaluation import finetune_torch  # noqa: E402
from conversion import torch_models  # noqa: E402
from conversion.mapping import weights_fingerprint  # noqa: E402
from tests.fixtures.task_data import clinical_sentences  # noqa: E402

pytestmark = pytest.mark.torch

SIZES = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "pad_token_id": 2,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "sep_token_id": 1,
    "cls_token_id": 0,
}
SHORT, LONG = {"max_position_embeddings": 512}, {"max_position_embeddings": 4096}
ARCHITECTURES = {
    "Bert": SHORT,
    "Roberta": {"max_position_embeddings": 515},  # and the padding id + 1 before them
    "BigBird": LONG | {"block_size": 16},
    "Longformer": {"max_position_embeddings": 4099, "attention_window": 32},
    "ModernBert": {"max_position_embeddings": 8192},
}
READS = {"Bert": 512, "Roberta": 512, "BigBird": 4096, "Longformer": 4096, "ModernBert": 8192}


@pytest.fixture(scope="module", params=sorted(ARCHITECTURES))
def model(request, tmp_path_factory):
    """`(architecture, folder)`: random weights and a tokenizer of 300 tokens."""
    folder = tmp_path_factory.mktemp(request.param) / request.param.lower()
    texts = ["the patient reports a dry cough and chest pain since last week", "a red rash"]
    train_tokenizer(texts, 300, folder)
    save_random(request.param, folder)
    return request.param, folder


def save_random(architecture, folder):
    values = getattr(transformers, f"{architecture}Config")(**SIZES, **ARCHITECTURES[architecture])
    getattr(transformers, f"{architecture}Model")(values).save_pretrained(folder)


def results_of(output, *arguments):
    commands.main("evaluate", *map(str, arguments), "--backend", "torch", "--output", str(output))
    return json.loads((output / "results.json").read_text())


@pytest.mark.parametrize("task", ["csv", "conll"])
def test_it_is_fine_tuned_and_scored(model, task, tmp_path):
    _, folder = model
    data = clinical_sentences(tmp_path / "data", task, train=64, held_out=16)
    columns = ["--text-column", "text", "--label-column", "label"] if task == "csv" else []
    found = results_of(
        tmp_path / "out",
        *("--task", task, "--data", data, "--model", folder, *columns),
        *("--seeds", "1,2", "--epochs", "2", "--learning-rate", "1e-3"),
    )
    assert found["backend"] == "torch"
    assert len(found["per_seed"]) == 2
    curve = found["curves"][0]
    assert curve[1]["train_loss"] < curve[0]["train_loss"]


def test_it_goes_through_the_speed_protocol(model, tmp_path):
    architecture, folder = model
    assert torch_models.max_length(str(folder)) == READS[architecture]
    found = results_of(
        tmp_path,
        *("--task", "speed", "--model", folder, "--protocol", "published"),
        *("--documents", "4", "--iterations", "1"),
    )
    sets = [line["set"] for line in found["results"]]
    expected = ["short fixed", "short variable", "medium fixed", "medium variable"]
    expected += ["long fixed", "long variable"]
    assert sets == expected[: 2 * sum(READS[architecture] >= n for n in (512, 4096, 8192))]
    variable = found["results"][1]
    assert variable["padded"]
    assert variable["documents"] == 4
    nominal, seconds = variable["nominal_tokens_per_second"], variable["seconds"]
    assert nominal == pytest.approx(4 * 256 / seconds)


def test_a_masked_lm_without_a_pooler_is_the_same_model_again(model, tmp_path):
    architecture, folder = model
    found = getattr(transformers, f"{architecture}ForMaskedLM").from_pretrained(folder)
    found.save_pretrained(tmp_path / "masked_lm")
    first, second = (finetune_torch.read_encoder(str(tmp_path / "masked_lm"))[0] for _ in range(2))
    assert weights_fingerprint(first) == weights_fingerprint(second)


def test_bigbird_keeps_its_sparse_attention_after_a_short_batch(tmp_path):
    save_random("BigBird", tmp_path)
    encoder = torch_models.load_model(str(tmp_path), "encoder").eval()
    types = []
    for length in (64, 1024):
        ids = np.full((1, length), 100)
        torch_models.run_model(encoder, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
        types.append(encoder.attention_type)
    assert types == ["original_full", "block_sparse"]


def test_norms_and_biases_do_not_decay(model):
    _, folder = model
    made = torch_models.load_model(str(folder), "token_classification", num_labels=3)
    decayed, free = finetune_torch._groups(made, 0.1)
    assert decayed["weight_decay"] == 0.1
    assert free["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in free["params"])
    assert all(p.ndim == 2 for p in decayed["params"])
    assert sum(map(len, (decayed["params"], free["params"]))) == len(list(made.parameters()))


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(InputError, match="has no config of an encoder"):
        torch_models.max_length(str(tmp_path))
    with pytest.raises(InputError, match=r"has no config\.json"):
        torch_models.load_model(str(tmp_path), "token_classification")
