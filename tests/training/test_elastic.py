# SPDX-License-Identifier: Apache-2.0
"""Runs that go on with other numbers of devices: the same rows, masks and losses."""

import shutil

import jax
import numpy as np
import pytest
from jax.sharding import AxisType

from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.errors import DONE, PREEMPTED
from bcmb_jax.sharding import AXES
from bcmb_jax.training import start as starting
from bcmb_jax.training import train as training
from tests.fixtures.recorded_training import recorded, rows_in
from tests.fixtures.runs import final_state, lines, tiny_run, train
from tests.fixtures.shards import change_index

RELATIVE = 1e-6  # a loss is a sum of some hundred float32, in an order that the devices decide


def losses(workdir):
    """Return the loss of each step."""
    return np.array([line["loss"] for line in lines(workdir) if "loss" in line])


@pytest.fixture(scope="module")
def three_sources(tmp_path_factory):
    """Folders of the shards of three sources with one tokenizer, of some 25 rows together."""
    folder = tmp_path_factory.mktemp("sources")
    one = prepare_synthetic(folder / "one", vocab_size=512, notes=6, validation_fraction=0.2)
    for name in ("two", "three"):
        shutil.copytree(one, folder / name)
        change_index(folder / name / "train", source=name)
    return tuple(str(x) for x in (one, folder / "two", folder / "three"))


@pytest.fixture
def config(three_sources):
    """A run with dropout, whose epoch has some 17 steps."""
    config = tiny_run(three_sources[0])
    config.data.train, config.data.validation = three_sources, three_sources[:1]
    config.data.weights = (1.0, 0.5, 2.0)
    config.max_tokens, config.eval_every, config.save_every = 24_000, 0, 0
    config.model.num_attention_heads = 4
    assert config.model.attention_output_dropout > 0
    return config


@pytest.mark.slow
def test_devices_change_and_rows_masks_and_losses_do_not(config, tmp_path, monkeypatch):
    make_step = training.make_step

    def train_on(workdir, devices, fsdp, tensor, steps):
        mesh = jax.make_mesh(
            (devices // (fsdp * tensor), fsdp, tensor),
            AXES,
            (AxisType.Auto,) * 3,
            devices=jax.devices()[:devices],
        )
        monkeypatch.setattr(starting, "make_mesh", lambda *_: mesh)
        rows = workdir.with_suffix(".rows")
        monkeypatch.setattr(training, "make_step", recorded(make_step, rows, steps))
        return train(config, workdir)

    one, walk = tmp_path / "one", tmp_path / "walk"
    assert train_on(one, 1, 1, 1, 0) == DONE
    assert train_on(walk, 8, 2, 2, 9) == PREEMPTED
    assert train_on(walk, 4, 1, 4, 6) == PREEMPTED
    assert train_on(walk, 2, 2, 1, 0) == DONE
    assert rows_in(tmp_path / "walk.rows") == rows_in(tmp_path / "one.rows")
    assert final_state(walk)[1]["progress"]["epoch"] == 1
    print("largest relative difference", np.abs(losses(walk) / losses(one) - 1).max())
    np.testing.assert_allclose(losses(walk), losses(one), rtol=RELATIVE)
