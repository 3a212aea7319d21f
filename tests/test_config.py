# SPDX-License-Identifier: Apache-2.0
"""Configurations are checked once, at the door, and say what decides a run."""

import json

import pytest

from bcmb_jax.config import RunConfig, decisive_values
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import BASE, LARGE
from configs import base, phase1, phase2, tiny


@pytest.mark.parametrize("make", [base.get_config, phase1.get_config, phase2.get_config])
@pytest.mark.parametrize("size", ["base", "large"])
def test_every_key_is_typed_and_comes_back(make, size):
    config = make(size)
    config.data.train, config.data.weights = ("a", "b"), (1.0, 2.0)
    typed = RunConfig.from_dict(config.to_dict())
    assert typed.data.weights == (1.0, 2.0)
    assert typed.model.hidden_size == config.model.hidden_size
    stored = json.dumps(typed.as_dict())
    assert stored == json.dumps(config.to_dict())  # in the same order: stored files keep their form
    assert RunConfig.from_dict(json.loads(stored)) == typed


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("seeds", 1, "there is no key config.seeds; the nearest is config.seed"),
        ("data", {"row_lenght": 8}, "there is no key config.data.row_lenght; the nearest is"),
        ("data", {}, "lacks the key data.train"),
        ("data", 5, "data is 5; it must be a group of keys"),
        ("max_tokens", 1.5, "max_tokens is 1.5; it must be a whole number"),
        ("remat", 1, "remat is 1; it must be True or False"),
        ("seed", True, "seed is True; it must be a whole number"),
        ("tokenizer", None, "tokenizer is None; it must be a text"),
    ],
)
def test_what_is_wrong_is_named(key, value, message):
    with pytest.raises(InputError, match=message):
        RunConfig.from_dict(tiny.get_config().to_dict() | {key: value})


def test_folders_are_named_by_texts():
    config = tiny.get_config().to_dict()
    config["data"]["train"] = ("a", 3)
    with pytest.raises(InputError, match=r"data.train\[1\] is 3; it must be a text"):
        RunConfig.from_dict(config)


def test_whole_numbers_are_numbers_too():
    config = tiny.get_config().to_dict() | {"learning_rate": 1}
    rate = RunConfig.from_dict(config).learning_rate
    assert isinstance(rate, float)
    assert rate == 1.0


def test_what_decides_a_run_and_what_does_not():
    decisive = decisive_values(tiny.get_config().to_dict())
    assert list(decisive) == [
        "seed",
        "model",
        "precision",
        "learning_rate",
        "weight_decay",
        "mask_rate",
        "train_rows_per_step",
        "schedule",
        "data",
        "max_tokens",
    ]
    assert list(decisive["data"]) == ["weights", "row_length", "max_document_length"]
    assert set(decisive["model"]) == set(tiny.get_config().model.keys())


def test_older_runs_do_not_name_the_activation():
    """A configuration as runs stored it before `model.hidden_activation` was a key."""
    older = tiny.get_config().to_dict()
    del older["model"]["hidden_activation"]
    assert RunConfig.from_dict(older) == RunConfig.from_dict(tiny.get_config().to_dict())
    assert decisive_values(older) == decisive_values(tiny.get_config().to_dict())
    newer = tiny.get_config().to_dict()
    newer["model"]["hidden_activation"] = "silu"
    assert decisive_values(older) != decisive_values(newer)
    newer["model"]["hidden_activation"] = "relu"
    with pytest.raises(InputError, match="'relu' is neither 'gelu' nor 'silu'"):
        RunConfig.from_dict(newer)


def test_microbatches_and_rate():
    config = tiny.get_config().to_dict() | {"train_rows_per_step": 32, "rows_per_microbatch": 2}
    typed = RunConfig.from_dict(config)
    assert [typed.microbatches(shards) for shards in (1, 2, 4, 16)] == [16, 8, 4, 1]
    with pytest.raises(InputError, match="the next that does is 33"):
        typed.microbatches(3)
    assert typed.learning_rate_after(30_000) == pytest.approx(typed.learning_rate / 2)
    assert typed.schedule.milestones(typed.max_tokens) == [
        0,
        60_000,
        500_000,
        650_000,
        800_000,
        1_100_000,
    ]


@pytest.mark.parametrize(("size", "model"), [("base", BASE), ("large", LARGE)])
def test_sizes_of_the_configs_are_those_of_the_models(size, model):
    assert RunConfig.from_dict(base.get_config(size).to_dict()).model == model


def test_a_stored_configuration_of_an_older_version_gets_the_keys_that_came_later():
    stored = base.get_config().to_dict()
    config = RunConfig.from_dict(stored)
    del stored["spike_deviations"], stored["hang_seconds"], stored["data"]["skip_rows"]
    assert RunConfig.from_dict(stored) == config
    del stored["seed"]
    with pytest.raises(InputError, match="the configuration lacks the key seed"):
        RunConfig.from_dict(stored)
