# SPDX-License-Identifier: Apache-2.0
"""Runs that are refused before they start, and predictions that count as hits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.config import RunConfig
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.masking import MaskedBatch, MaskingRule
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import init_parameters, split
from bcmb_jax.optimizer import stable_adamw, weight_decay_mask
from bcmb_jax.sharding import mesh_for_rows, to_mesh
from bcmb_jax.training.checkpoint import TrainState
from bcmb_jax.training.forecast import forecast
from bcmb_jax.training.step import train_step
from bcmb_jax.training.train import train
from bcmb_jax.training.validation import Evaluator
from configs import tiny
from tests.fixtures.shards import write_shards
from tests.fixtures.tiny_batches import packed_batch
from tests.fixtures.tiny_weights import TINY


def run_config(*folders, **data) -> RunConfig:
    config = tiny.get_config()
    config.data.update(data | {"train": tuple(map(str, folders)), "row_length": 64})
    config.data.max_document_length = 64
    config.train_rows_per_step, config.precision = 8, "fp32"
    config.model.update(TINY.as_dict())
    return RunConfig.from_dict(config.to_dict())


@pytest.fixture
def special(tiny_tokenizer):
    return load_tokenizer(str(tiny_tokenizer)).special


@pytest.mark.parametrize(
    ("roles", "splits"),
    [
        (("unk",), ("train",)),
        (("unk", "sep", "mask"), ("train",)),
        (("cls", "pad"), ("train", "validation")),
        (("unk",), ("validation",)),
    ],
)
def test_shards_without_a_token_to_mask_are_refused(
    roles, splits, special, tiny_tokenizer, tmp_path
) -> None:
    good = write_shards(tmp_path / "good", tiny_tokenizer)
    ids = [getattr(special, role) for role in roles]
    bad = write_shards(tmp_path / "bad", tiny_tokenizer, ids=ids, splits=splits)
    if "train" in splits:
        config = run_config(good, bad)
    else:
        config = run_config(good, validation=(str(bad),))
    for start in (forecast, train):
        with pytest.raises(InputError, match="holds no token that can be masked: all 320") as error:
            start(config, tmp_path / "run")
        assert f"{bad / splits[0]} " in str(error.value)
        assert "learning_rate" not in str(error.value)
    assert not (tmp_path / "run").exists()


def test_one_token_to_mask_is_enough_to_start(special, tiny_tokenizer, tmp_path) -> None:
    shards = write_shards(
        tmp_path / "rare", tiny_tokenizer, ids=[special.unk] * 200 + [20], splits=["train"]
    )
    assert "packing" in forecast(run_config(shards), tmp_path / "run")


@pytest.mark.slow
def test_a_step_that_predicts_nothing_changes_nothing() -> None:
    make = lambda: ModernBertForMaskedLM(TINY, rngs=nnx.Rngs(0))  # noqa: E731
    graph, _ = split(make)
    params = jax.jit(lambda: init_parameters(make))()
    optimizer = stable_adamw(max_lr=1e-3, decay_mask=weight_decay_mask, weight_decay=0.0)
    batch = packed_batch(2, 32)
    batch = Batch(np.full_like(batch.tokens, 3), *batch[1:])
    rule = MaskingRule(0.3, 4, (3, 4), np.arange(5, 300))
    state, metrics = jax.jit(
        lambda state, batch: train_step(
            state, batch, 1e-3, graph=graph, optimizer=optimizer, rule=rule, seed=0
        )
    )(TrainState(params, optimizer.init(params)), to_mesh(batch, mesh_for_rows(1), 1))
    assert float(metrics.loss) == float(metrics.grad_norm) == 0
    jax.tree.map(np.testing.assert_array_equal, state.params, params)


SLOW = [
    pytest.param(x, marks=pytest.mark.slow) for x in ("decoder.bias", "model.final_norm.weight")
]


@pytest.mark.parametrize("broken", ["one logit", *SLOW])
def test_predictions_of_nan_are_not_hits(broken) -> None:
    make = lambda: ModernBertForMaskedLM(TINY, rngs=nnx.Rngs(0))  # noqa: E731
    graph, _ = split(make)
    params = jax.jit(lambda: init_parameters(make))()
    if broken == "one logit":
        params["decoder.bias"] = params["decoder.bias"].at[7].set(jnp.nan)
    else:
        params[broken] = jnp.full_like(params[broken], jnp.nan)
    batch = packed_batch(2, 32)
    positions = np.tile(np.arange(4, dtype=np.int32), (2, 1))
    targets = np.full((2, 4), 7, np.int32)
    rows = MaskedBatch(*batch[:3], positions, targets, np.ones((2, 4), np.float32))
    (scores,) = Evaluator(graph, {"notes": rows}, mesh_for_rows(1))(params).values()
    assert np.isnan(scores.loss)
    assert (scores.masked_accuracy, scores.top5_accuracy) == (0, 0)
