# SPDX-License-Identifier: Apache-2.0
"""Metrics files, the display, and the FLOPs behind MFU."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.attention.mask import key_intervals
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.training.metrics import (
    MetricsWriter,
    forward_flops_per_token,
    mean_keys,
    mfu,
)


def steps(path):
    return [json.loads(line)["step"] for line in (path / "metrics.jsonl").read_text().splitlines()]


def test_resuming_forgets_what_was_written_after_the_checkpoint(tmp_path):
    writer = MetricsWriter(tmp_path, 0)
    for step in (1, 2, 3):
        writer.write(step, {"loss": 1.0, "mfu": None})
    writer.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "los')  # killed in the middle of a line
    writer = MetricsWriter(tmp_path, 2)
    writer.write(3, {"loss": 2.0})
    writer.close()
    assert steps(tmp_path) == [1, 2, 3]
    assert list((tmp_path / "tensorboard").iterdir())


def test_flops_of_base_and_large():
    for config, linear_parameters in [(BASE, 110_297_088), (LARGE, 343_146_496)]:
        short = forward_flops_per_token(config, np.array([1]), predicted=0)
        attention = 4 * config.hidden_size * config.num_hidden_layers
        assert short == pytest.approx(2 * linear_parameters + attention)
    long = forward_flops_per_token(BASE, np.array([8192]), 0)
    assert long == pytest.approx(427e6, rel=5e-3)  # 221 linear, 201 global, 6 local
    decoder = forward_flops_per_token(BASE, np.array([8192]), 0.3) - long
    assert decoder == pytest.approx(0.3 * 2 * 768 * (768 + 50368))


@pytest.mark.parametrize("window", [None, 1, 64])
def test_mean_keys_are_those_the_mask_shows(window):
    lengths = np.array([1, 2, 64, 65, 200])
    segment_ids = np.repeat(np.arange(5) + 1, lengths)[None]
    start, end = key_intervals(jnp.asarray(segment_ids), window)
    assert mean_keys(lengths, window) == pytest.approx(float((end - start).mean()))


def test_mfu_is_a_share_of_a_known_peak():
    assert mfu(1e5, 1e9, "NVIDIA H100 80GB HBM3", 2) == pytest.approx(1e14 / (2 * 989e12))
    assert mfu(1e5, 1e9, "cpu", 1) is None
