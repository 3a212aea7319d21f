# SPDX-License-Identifier: Apache-2.0
"""Logits equal those of transformers' ModernBERT, and are no less exact."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from conversion.mapping import MASKED_LM
from conversion.torch_models import build_modernbert
from conversion.verify import our_frequencies
from tests.fixtures.torch_models import (
    NARROW,
    our_logits,
    our_parameters,
    random_rows,
    torch,
    torch_logits,
    torch_model,
)
from tests.fixtures.trained import REPEATER, trained_parameters

pytestmark = pytest.mark.torch

# Two correct fp32 programs differ in the order of their sums: 1e-6 here on logits of up to 30. The
# smallest mistakes (a window off by one, GELU's tanh approximation) are 1e-3 and more.
LOGIT_TOLERANCE = 2e-5
# transformers' rotary frequencies are powers in fp32, a unit in the last place off at most: far
# positions feel it, random weights by 3e-5, and at 8,192 by 1.02e-4 where PyTorch has AVX2 alone.
OTHER_FREQUENCIES = {"padded": 1e-4, "packed": 1e-4, "8192": 2e-4}
# Against float64: ours may be twice as far as transformers', which is luck of rounding, no more.
ERROR_RATIO = 2.0
# Trained weights are rounded more coarsely by both sides: their difference is at most the sum of
# two errors, and ours may be twice theirs.
TRAINED_RATIO = 3.0

ROWS = {
    "padded": random_rows([300], [17], [129], length=320),
    "packed": random_rows([40, 1, 200, 2, 33], [5, 310], length=320),
    "8192": random_rows([8192], length=8192),
}


@pytest.mark.parametrize("local_attention", [16, 128])
@pytest.mark.parametrize("rows", ROWS)
def test_logits_equal_those_of_transformers(rows: str, local_attention: int) -> None:
    config = dataclasses.replace(NARROW, local_attention=local_attention)
    tokens, segment_ids = ROWS[rows]
    real = segment_ids > 0
    model = torch_model(config)
    ours = our_logits(our_parameters(model, config), tokens, segment_ids, config)
    assert np.abs(ours[real]).max() > 5  # logits that would show a difference
    theirs = torch_logits(model, tokens, segment_ids)
    assert np.abs(ours - theirs)[real].max() <= OTHER_FREQUENCIES[rows]
    with our_frequencies(model, config):
        for attention in ("sdpa", "eager"):
            model.set_attn_implementation(attention)
            theirs = torch_logits(model, tokens, segment_ids)
            assert np.abs(ours - theirs)[real].max() <= LOGIT_TOLERANCE, attention


def test_thetas_and_the_pattern_of_layers_are_the_configs() -> None:
    config = dataclasses.replace(
        NARROW,
        num_hidden_layers=5,
        global_attn_every_n_layers=2,
        local_attention=30,
        global_rope_theta=5000.0,
        local_rope_theta=700.0,
        norm_eps=1e-3,
    )
    model = torch_model(config)
    tokens, segment_ids = ROWS["packed"]
    ours = our_logits(our_parameters(model, config), tokens, segment_ids, config)
    real = segment_ids > 0
    theirs = torch_logits(model, tokens, segment_ids)
    assert np.abs(ours - theirs)[real].max() <= LOGIT_TOLERANCE


@pytest.mark.parametrize("length", [320, 8192])
def test_trained_weights_give_the_logits_of_transformers(length: int) -> None:
    """Heads that look a fixed distance away feel angles, so both sides take our frequencies."""
    tokens, segment_ids = random_rows([length], length=length, config=REPEATER)
    params = trained_parameters()
    model = build_modernbert(REPEATER, MASKED_LM, params).eval()
    with our_frequencies(model, REPEATER):
        theirs = torch_logits(model, tokens, segment_ids)
        exact = torch_logits(model.double(), tokens, segment_ids)
    ours = our_logits(params, tokens, segment_ids, REPEATER)
    rounding = np.abs(theirs - exact).max()
    assert np.abs(ours - theirs).max() <= TRAINED_RATIO * rounding


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_as_exact_as_transformers_on_heavy_tailed_weights(dtype: str) -> None:
    """Over three models: the largest error of one alone, on either side, is much a matter of which
    instructions the machine has."""
    tokens, segment_ids = ROWS["padded"]
    real = segment_ids > 0
    errors: dict[str, list[np.ndarray]] = {"ours": [], "theirs": []}
    for seed in range(3):
        model = torch_model(seed=seed, tails=3.0)
        params = our_parameters(model)
        exact = torch_logits(torch_model(seed=seed, tails=3.0).double(), tokens, segment_ids)[real]
        ours = our_logits(params, tokens, segment_ids, dtype=jnp.dtype(dtype))[real]
        theirs = torch_logits(model.to(getattr(torch, dtype)), tokens, segment_ids)[real]
        for name, logits in (("ours", ours), ("theirs", theirs)):
            errors[name].append((logits - exact) / np.abs(exact).max())
    for norm in (lambda x: np.abs(x).max(), lambda x: np.sqrt(np.square(x).mean())):
        error, their_error = (norm(np.stack(x)) for x in errors.values())
        print(f"{dtype}: ours {error:.2e}, transformers {their_error:.2e}")
        assert error <= ERROR_RATIO * their_error
