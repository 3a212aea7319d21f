# SPDX-License-Identifier: Apache-2.0
"""The FLOPs behind MFU."""

import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.attention.mask import key_intervals
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.model.cost import forward_flops_per_token, mean_keys


def test_flops_of_base_and_large():
    for config, linear_parameters in [(BASE, 110_297_088), (LARGE, 343_146_496)]:
        short = forward_flops_per_token(config, np.array([1]), predicted=0.0)
        attention = 4 * config.hidden_size * config.num_hidden_layers
        assert short == pytest.approx(2 * linear_parameters + attention)
    long = forward_flops_per_token(BASE, np.array([8192]), 0.0)
    assert long == pytest.approx(427e6, rel=5e-3)  # 221 linear, 201 global, 6 local
    decoder = forward_flops_per_token(BASE, np.array([8192]), 0.3) - long
    assert decoder == pytest.approx(0.3 * 2 * 768 * (768 + 50368))


@pytest.mark.parametrize("window", [None, 1, 64])
def test_mean_keys_are_those_the_mask_shows(window):
    lengths = np.array([1, 2, 64, 65, 200])
    segment_ids = np.repeat(np.arange(5) + 1, lengths)[None]
    start, end = key_intervals(jnp.asarray(segment_ids), window)
    assert mean_keys(lengths, window) == pytest.approx(float((end - start).mean()))
