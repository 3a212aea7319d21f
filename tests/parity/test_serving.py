# SPDX-License-Identifier: Apache-2.0
"""Every kind of model in ONNX Runtime and sentence-transformers: the outputs are ours."""

import json

import numpy as np
import pytest

from bcmb_jax.commands import main
from bcmb_jax.model.heads import MODELS, Head
from conversion.export import write_huggingface
from conversion.onnx_files import write_onnx
from conversion.serving import write_sentence_transformers
from conversion.weights import read
from tests.fixtures.cards import run_example
from tests.fixtures.tiny_weights import random_weights

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of PyTorch's exporter
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@pytest.fixture(params=MODELS)
def model(request, tmp_path, tiny_tokenizer):
    """A folder with a model of each head."""
    labels = ("a", "b", "c") if request.param.endswith("_classification") else ()
    weights = random_weights(head=Head(request.param, labels))._replace(tokenizer=tiny_tokenizer)
    (tmp_path / "model").mkdir()
    write_huggingface(weights, tmp_path / "model")
    return tmp_path / "model"


def test_onnx_runtime_gives_our_outputs(model, tmp_path, monkeypatch) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    target = tmp_path / "onnx"
    main("convert", "--input", str(model), "--to", "onnx", "--output", str(target))
    session = onnxruntime.InferenceSession(target / "model.onnx")
    weights = read(model)
    name = "last_hidden_state" if weights.head.kind == "encoder" else "logits"
    assert [x.name for x in session.get_outputs()] == [name]
    assert {x.name: x.shape for x in session.get_inputs()} == {
        "input_ids": ["batch", "sequence"],
        "attention_mask": ["batch", "sequence"],
    }
    # Padding, and another number of rows than it was traced with, change nothing.
    ids = np.random.default_rng(0).integers(0, 300, (3, 100))
    mask = np.ones_like(ids)
    mask[1, 40:] = 0
    padded = session.run(None, {"input_ids": ids, "attention_mask": mask})[0][1]
    alone = session.run(None, {"input_ids": ids[1:2, :40], "attention_mask": mask[1:2, :40]})[0][0]
    np.testing.assert_allclose(padded[: len(alone)], alone, atol=5e-6)
    assert json.loads((target / "config.json").read_text())["data_agreements"]
    assert run_example(target, monkeypatch)[name].dtype == np.float32


def test_int8_is_close_and_says_how_close(model, tmp_path) -> None:
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    difference = write_onnx(read(model), tmp_path, "model", int8=True)
    assert difference.cosine > 0.98
    assert difference.largest > 1e-4
    assert not (tmp_path / "model.onnx").exists()
    assert f"On random tokens, from float32: {difference}" in (tmp_path / "README.md").read_text()


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_sentence_transformers_gives_our_vectors(model, tmp_path, pooling, monkeypatch) -> None:
    pytest.importorskip("sentence_transformers")
    target = tmp_path / "vectors"
    target.mkdir()
    difference = write_sentence_transformers(read(model), target, "model", pooling)
    assert difference.largest < 1e-5
    assert run_example(target, monkeypatch)["vectors"].shape == (2, 16)
