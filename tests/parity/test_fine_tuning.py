# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning in JAX and in PyTorch: same weights, data and seed, same losses step by step."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch", reason="needs the extra [torch]")

from bcmb_jax.evaluation import finetune_torch, load
from bcmb_jax.evaluation.examples import Dataset, Example
from bcmb_jax.evaluation.finetune_jax import HEADS
from bcmb_jax.evaluation.protocol import Settings, fine_tune, score
from bcmb_jax.evaluation.tasks import TASKS
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import init_parameters
from conversion.export import write_huggingface
from conversion.mapping import Weights
from tests.fixtures.task_data import clinical_sentences
from tests.fixtures.torch_models import NARROW

pytestmark = pytest.mark.torch

CONFIG = dataclasses.replace(
    NARROW, hidden_size=48, num_attention_heads=3, num_hidden_layers=4, max_position_embeddings=256
)
FIRST_STEPS = 20
KINDS = ("single_label", "multi_label", "tagging")
COLUMNS = {"text_column": "text", "label_column": "label"}


def read(kind, folder):
    """Made-up sentences; for several labels two of them, or none of their labels."""
    if kind == "tagging":
        data = clinical_sentences(folder, "conll", train=400, held_out=60)
        return TASKS["conll"].read(data)
    count = 800 if kind == "multi_label" else 400
    data = clinical_sentences(folder, "csv", train=count, held_out=count * 60 // 400)
    single = TASKS["csv"].read(data, **COLUMNS)
    if kind == "single_label":
        return single
    splits = {
        split: [
            Example(a.where, f"{a.text} {b.text}", tuple(sorted({*a.labels, *b.labels})))
            if i % 5
            else Example(a.where, " ".join(a.text.split()[:2]), ())
            for i, (a, b) in enumerate(zip(examples[::2], examples[1::2], strict=True))
        ]
        for split, examples in single.splits.items()
    }
    return Dataset("multi_label", single.labels, splits)


@pytest.fixture(scope="module", params=KINDS)
def sides(request, tmp_path_factory):
    """`(dataset, encoded, our classifier, transformers' classifier)`, of one folder of weights."""
    from bcmb_jax.data.synthetic import train_tokenizer

    place = tmp_path_factory.mktemp(request.param)
    dataset = read(request.param, place / "data")
    tokenizer = place / "tokenizer"
    texts = [
        e.text if isinstance(e.text, str) else " ".join(e.text) for e in dataset.splits["train"]
    ]
    train_tokenizer(texts, CONFIG.vocab_size, tokenizer)
    head = Head(HEADS[dataset.kind], dataset.labels)
    params = init_parameters(lambda: MODELS[head.kind](CONFIG, head, rngs=nnx.Rngs(5)))
    weights = Weights(
        CONFIG,
        jax.device_get(params),
        {"cls": 0, "sep": 1, "pad": 2},
        tokenizer,
        origin="random",
        head=head,
    )
    folder = place / "model"
    folder.mkdir()
    write_huggingface(weights, folder)
    settings = Settings(epochs=4)
    ours = load.load_jax_classifier(str(folder), dataset, settings, precision="fp32")
    theirs = load.load_torch_classifier(str(folder), dataset, settings)
    assert ours.width == theirs.width
    assert ours.tokenizer.max_length == 256
    encoded, again = (
        {split: side.tokenizer.encode(dataset, x) for split, x in dataset.splits.items()}
        for side in (ours, theirs)
    )
    for a, b in zip(encoded["train"], again["train"], strict=True):
        assert np.array_equal(a.tokens, b.tokens)
    return dataset, encoded, ours.classifier, theirs.classifier


def test_the_first_losses_agree(sides):
    _, encoded, ours, theirs = sides
    train = encoded["train"]
    assert len({len(e.tokens) for e in train}) > 5  # padding and packing differ
    losses = []
    for side in (ours, theirs):
        side.reset(0)
        steps = [train[i * 16 : i * 16 + 16] for i in range(FIRST_STEPS)]
        losses.append([float(side.step(batch, 5e-4)) for batch in steps])
    jax_losses, torch_losses = np.array(losses)
    assert jax_losses[-5:].mean() < 0.9 * jax_losses[:5].mean()
    np.testing.assert_allclose(jax_losses, torch_losses, rtol=1e-4)
    worst = np.abs(jax_losses / torch_losses - 1).max()
    print(json.dumps({"steps": FIRST_STEPS, "worst relative difference": worst}))


@pytest.mark.parametrize(("device", "expected"), [("cuda", ["high"]), ("cpu", [])])
def test_pytorch_multiplies_in_tf32_on_a_gpu_alone(sides, monkeypatch, device, expected):
    import torch

    asked = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", asked.append)
    monkeypatch.setattr(finetune_torch, "precision", lambda: finetune_torch.PRECISION[device])
    sides[3].reset(0)
    assert asked == expected


def test_the_final_score_is_the_same(sides):
    dataset, encoded, ours, theirs = sides
    found = []
    for side in (ours, theirs):
        run = fine_tune(side, dataset, encoded, Settings(epochs=4), seed=1, learning_rate=2e-3)
        metric = "f1" if dataset.kind == "tagging" else "weighted_f1"
        found.append(score(dataset, "test", run.predicted)[metric])
    print(found)
    assert min(found) > 0.8
    assert abs(found[0] - found[1]) < 0.05
