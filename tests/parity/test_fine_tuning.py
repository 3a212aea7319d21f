# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning in JAX and in PyTorch: same weights, data and seed, same losses step by step."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from flax import nnx

pytest.importorskip("torch", reason="needs the extra [torch]")

from bcmb_jax.evaluation import load
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
    NARROW, vocab_size=300, local_attention=16, max_position_embeddings=256
)
FIRST_STEPS = 20
HEADS = {"csv": "sequence_classification", "conll": "token_classification"}
OPTIONS = {"csv": {"text_column": "text", "label_column": "label"}, "conll": {}}


@pytest.fixture(scope="module", params=sorted(HEADS))
def sides(request, tmp_path_factory):
    """`(dataset, encoded, our classifier, transformers' classifier)`, of one folder of weights."""
    from bcmb_jax.data.synthetic import train_tokenizer

    name = request.param
    place = tmp_path_factory.mktemp(name)
    data = clinical_sentences(place / "data", name, train=400, held_out=60)
    dataset = TASKS[name].read(data, **OPTIONS[name])
    tokenizer = place / "tokenizer"
    texts = [e.text if name == "csv" else " ".join(e.text) for e in dataset.splits["train"]]
    train_tokenizer(texts, CONFIG.vocab_size, tokenizer)
    head = Head(HEADS[name], dataset.labels)
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
