# SPDX-License-Identifier: Apache-2.0
"""Refused updates: whole runs with a fault in one step end as if that step had changed nothing."""

import itertools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bcmb_jax.config import RunConfig
from bcmb_jax.errors import DONE, InputError, NumericsError
from bcmb_jax.model import modernbert
from bcmb_jax.training import checkpoint, faults
from bcmb_jax.training.checkpoint import RunProgress
from bcmb_jax.training.kept import Checkpoints
from bcmb_jax.training.replay import replay
from conversion.weights import read
from tests.fixtures.canaries import hits
from tests.fixtures.runs import faulty_run, final_state, lines, spoil, train


@pytest.fixture
def config(shards):
    return faulty_run(shards)


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    """A run without a fault that keeps the checkpoint of every step."""
    config = faulty_run(shards)
    config.save_every = 1
    workdir = tmp_path_factory.mktemp("undisturbed")
    assert train(config, workdir) == DONE
    return workdir


def without_update(undisturbed, step, workdir, config):
    """Finish the undisturbed run from a checkpoint in which `step` has changed no parameter."""
    shutil.copytree(undisturbed, workdir)
    for folder in (workdir / "checkpoints").iterdir():
        if int(folder.name) >= step:
            shutil.rmtree(folder)
    before, _ = checkpoint.load(undisturbed / "checkpoints" / str(step - 1))
    meta = checkpoint.read_meta(undisturbed / "checkpoints" / str(step))
    health = before.health._replace(skipped=np.int32(1), in_a_row=np.int32(1))
    checkpoints = Checkpoints(workdir / "checkpoints", 100)
    facts = {key: meta[key] for key in meta if key not in ("progress", "checksums")}
    state = jax.tree.map(jnp.asarray, before._replace(health=health))
    checkpoints.save(state, RunProgress(**meta["progress"]), facts)
    checkpoints.close()
    assert train(config, workdir) == DONE
    return final_state(workdir)


@pytest.mark.parametrize(
    ("step", "factor"),
    [
        (4, np.nan),  # a step that saves
        pytest.param(6, 1e6, marks=pytest.mark.slow),  # a spike, in a step that does not
        pytest.param(3, np.nan, marks=pytest.mark.slow),
        pytest.param(8, np.inf, marks=pytest.mark.slow),  # the last step
        pytest.param(3, np.inf, marks=pytest.mark.slow),
        pytest.param(4, 1e6, marks=pytest.mark.slow),
        pytest.param(8, np.nan, marks=pytest.mark.slow),
        pytest.param(8, 1e6, marks=pytest.mark.slow),
    ],
)
def test_a_refused_update_changes_nothing_but_the_count(
    undisturbed, config, tmp_path, monkeypatch, step, factor
):
    monkeypatch.setattr(faults, "MEMORY", 3)
    with monkeypatch.context() as patch:
        spoil(patch, [step], factor)
        assert train(config, tmp_path / "spoilt") == DONE
    found, meta = final_state(tmp_path / "spoilt")
    expected, right = without_update(undisturbed, step, tmp_path / "right", config)
    jax.tree.map(np.testing.assert_array_equal, found[:2], expected[:2])
    assert meta["progress"] == right["progress"]
    assert found.health.skipped == 1
    assert found.opt_state.step == 7
    skipped = [x["skipped_updates"] for x in lines(tmp_path / "spoilt") if "loss" in x]
    assert skipped == [0] * (step - 1) + [1] * (9 - step)
    for folder in (tmp_path / "spoilt" / "checkpoints").iterdir():
        state, _ = checkpoint.load(folder)
        assert all(np.isfinite(x).all() for x in jax.tree.leaves(state))


def test_three_refused_updates_in_a_row_stop_the_run(
    persons, scanner, tmp_path, monkeypatch, capfd
):
    """Neither messages nor what is written hold a value of the notes."""
    spoil(monkeypatch, [2, 4, 5, 6], np.nan)
    with pytest.raises(
        NumericsError, match=r"step 6: update refused .*rows 40-47.*4 refused in all"
    ) as caught:
        train(faulty_run(persons), tmp_path)
    told = "".join(capfd.readouterr())
    assert "step 2: update refused (loss nan" in told
    assert not hits(told + str(caught.value))
    assert {"metrics.jsonl", "4"} < {path.name for path in tmp_path.rglob("*")}
    assert not scanner.folder(tmp_path)
    written = (tmp_path / "metrics.jsonl").read_text()
    assert "NaN" not in written
    assert [json.loads(x)["loss"] is None for x in written.splitlines()] == [
        False,
        True,
        False,
        True,
        True,
    ]


def test_no_state_that_is_not_finite_is_saved_or_started_from(
    undisturbed, config, tmp_path, monkeypatch
):
    shutil.copytree(undisturbed, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "8"
    state, meta = checkpoint.load(newest)
    name = next(iter(state.params))
    state.params[name] = np.full_like(state.params[name], np.nan)
    with pytest.raises(NumericsError, match=f"1 of .* tensors .* first params/{name}; nothing is"):
        checkpoint.save_state(tmp_path / "poisoned", state, meta)
    assert not (tmp_path / "poisoned").exists()
    # A checkpoint of an older version may hold such a number all the same.
    with monkeypatch.context() as patch:
        patch.setattr(faults.jnp, "isfinite", jnp.ones_like)
        jax.clear_caches()
        checkpoint.save_state(tmp_path / "poisoned", state, meta, RunProgress(**meta["progress"]))
    jax.clear_caches()
    with pytest.raises(checkpoint.NotFiniteCheckpoint, match="not finite in 1 of") as caught:
        read(tmp_path / "poisoned")
    assert caught.value.exit_status == 65
    shutil.rmtree(newest)
    shutil.copytree(tmp_path / "poisoned", newest)
    assert train(config, tmp_path / "run") == DONE  # from step 7
    assert [x.name for x in (tmp_path / "run" / "checkpoints-damaged").iterdir()] == ["8"]
    found, right = final_state(tmp_path / "run")[0], final_state(undisturbed)[0]
    jax.tree.map(np.testing.assert_array_equal, found, right)


@pytest.mark.slow
def test_replay_names_the_first_number_that_is_not_finite(config, tmp_path, monkeypatch):
    run = RunConfig.from_dict(config.to_dict())
    spoil(monkeypatch, [2, 4, 5, 6], np.nan)
    with pytest.raises(NumericsError):
        train(config, tmp_path)
    before = sorted(x.name for x in tmp_path.rglob("*"))
    told = replay(run, tmp_path, 6)
    assert told.startswith("step 6, microbatch 1 of 1: the loss is the first number")
    assert "finite (loss" in replay(run, tmp_path, 3)
    with pytest.raises(InputError, match="the run ends with step 8: there is no step 9"):
        replay(run, tmp_path, 9)
    assert sorted(x.name for x in tmp_path.rglob("*")) == before


def test_replay_names_layer_and_row(undisturbed, config, monkeypatch):
    rope_table = modernbert.rope_table

    def break_fourth_row(positions, *arguments):
        table = rope_table(positions, *arguments)
        factor = jnp.where(jnp.arange(len(positions)) == 3, jnp.nan, 1.0)
        return jax.tree.map(lambda x: x * factor.reshape(-1, *(1,) * (x.ndim - 1)), table)

    monkeypatch.setattr(modernbert, "rope_table", break_fourth_row)
    told = replay(RunConfig.from_dict(config.to_dict()), undisturbed, 8)
    assert told == (
        "step 8, microbatch 1 of 1: layers.0 is the first tensor that is not finite, in rows 59"
    )


@pytest.mark.slow
def test_rows_that_are_skipped_are_not_trained_on(config, tmp_path, monkeypatch):
    spoil(monkeypatch, [2, 3, 4], np.nan)
    with pytest.raises(NumericsError, match=r"skip_rows=24-31"):
        train(config, tmp_path)
    config.data.skip_rows = "8-31"
    assert train(config, tmp_path) == DONE
    steps = [x for x in lines(tmp_path) if "loss" in x]
    assert [x["tokens_seen"] for x in steps[:4]] == [steps[0]["tokens_seen"]] * 4
    state, meta = final_state(tmp_path)
    assert meta["config"]["data"]["skip_rows"] == "8-31"
    assert (state.health.skipped, state.opt_state.step) == (0, len(steps) - 3)


def judged(norms, deviations=0.0, loss=1.0, predicted=1.0):
    """Return the decisions about updates with these gradient norms, and the health after them."""
    health, decisions = faults.good_health(), []
    for norm in norms:
        accepted, health = faults.judge(
            health, *(jnp.float32(x) for x in (loss, norm, predicted)), deviations
        )
        decisions.append(bool(accepted))
    return decisions, health


def test_running_statistics_are_those_of_the_updates_made(monkeypatch):
    norms = np.exp(np.random.default_rng(0).normal(size=60))
    decisions, health = judged([*norms[:30], np.nan, *norms[30:]])
    assert decisions == [True] * 30 + [False] + [True] * 30
    assert health.mean == pytest.approx(np.log(norms).mean(), abs=1e-5)
    assert health.variance == pytest.approx(np.log(norms).var(), abs=1e-4)
    assert (health.skipped, health.in_a_row, health.made) == (1, 0, 60)


def test_a_spike_is_told_only_after_enough_updates(monkeypatch):
    monkeypatch.setattr(faults, "MEMORY", 10)
    steady = [1.0, 1.1, 0.9] * 5
    assert judged([*steady[:9], 1e4], 6.0)[0][-1]
    assert not judged([*steady, 1e4], 6.0)[0][-1]
    assert judged([*steady, 1e4], 0.0)[0][-1]
    assert judged([*steady, 1.2], 6.0)[0][-1]


@pytest.mark.parametrize("where", range(2))
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_whatever_is_not_finite_is_refused(where, value):
    numbers = [jnp.float32(1.0)] * 2
    numbers[where] = jnp.float32(value)
    accepted, health = faults.judge(faults.good_health(), *numbers, jnp.float32(1.0), 0.0)
    assert not accepted
    assert (health.skipped, health.in_a_row, health.made) == (1, 1, 0)


def test_a_step_with_nothing_to_predict_is_neither_made_nor_refused():
    decisions, health = judged([0.0, 0.0], predicted=0.0)
    assert decisions == [False, False]
    assert all(x == 0 for x in itertools.chain(health))
