# SPDX-License-Identifier: Apache-2.0
"""Whole runs on synthetic notes: they learn, resume to the bit, and refuse bad input in a line."""

import dataclasses
import json
import logging
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest

from bcmb_jax import device
from bcmb_jax.agreements import Agreement, of_checkpoint
from bcmb_jax.config import RunConfig
from bcmb_jax.data.loader import Steps
from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.errors import DONE, PREEMPTED, InputError, StorageError
from bcmb_jax.locks import locked
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.training import checkpoint, goodput, start
from bcmb_jax.training import forecast as forecasting
from bcmb_jax.training.initial import Initial, check_constants
from bcmb_jax.training.opening import opening
from bcmb_jax.training.validation import Evaluator
from configs import base, phase1, phase2
from tests.fixtures.runs import damage_state, final_state, lines, tiny_run, train
from tests.fixtures.shards import change_index


@pytest.fixture(scope="module")
def once(shards, tmp_path_factory):
    """An undisturbed run."""
    workdir = tmp_path_factory.mktemp("once")
    assert train(tiny_run(shards), workdir) == DONE
    return workdir


@pytest.fixture
def finished(once, tmp_path):
    """A copy of it that may be changed."""
    return shutil.copytree(once, tmp_path / "finished")


@pytest.fixture
def config(shards):
    return tiny_run(shards)


def forecast(config, workdir=Path("none"), *arguments):
    return forecasting.forecast(RunConfig.from_dict(config.to_dict()), workdir, *arguments)


def initial(config, state, tokenizer=None):
    """Give the weights of a trained state, with its moments."""
    host = jax.device_get(state)
    model = RunConfig.from_dict(config.to_dict()).model
    return Initial(host.params, host.opt_state, tokenizer, model)


def stop_after(monkeypatch, steps, action):
    """Do `action` while the batch after `steps` more steps is fetched."""
    original = Steps.read_ahead

    def read_ahead(self):
        for count, item in enumerate(original(self)):
            if count == steps:
                action()
            yield item

    monkeypatch.setattr(Steps, "read_ahead", read_ahead)


class Crash(Exception):
    pass


def crash():
    raise Crash


def stop_in_evaluation(monkeypatch, number):
    """Raise a signal at the start of the evaluation of this number."""
    original, left = Evaluator._batches, [signal.SIGTERM, *[None] * (number - 1)]

    def batches(self, rows):
        if left and (told := left.pop()):
            signal.raise_signal(told)
        return original(self, rows)

    monkeypatch.setattr(Evaluator, "_batches", batches)


def test_stopped_and_resumed_is_identical_to_the_bit(config, once, tmp_path, monkeypatch, capsys):
    workdir = tmp_path / "disturbed"
    for steps in (0, 2):  # stopped by a signal in the first step, then in the third from there
        with monkeypatch.context() as patch:
            stop_after(patch, steps, lambda: signal.raise_signal(signal.SIGTERM))
            assert train(config, workdir) == PREEMPTED
    with monkeypatch.context() as patch, pytest.raises(Crash):
        stop_after(patch, 2, crash)  # in step 7, after the save of step 4
        train(config, workdir)
    # In the evaluation of step 6, then, once that is made again, in the one of the last step.
    for step, evaluation in ((6, 1), (8, 2)):
        with monkeypatch.context() as patch:
            stop_in_evaluation(patch, evaluation)
            assert train(config, workdir) == PREEMPTED
        assert checkpoint.latest(workdir).name == str(step)
        assert [x for x in lines(workdir) if x["step"] == step and "loss" not in x] == []
        assert f"saved at step {step}; the same command resumes" in capsys.readouterr().err
    assert train(config, workdir) == DONE

    assert lines(workdir) == lines(once)
    resumed, resumed_meta = final_state(workdir)
    undisturbed, undisturbed_meta = final_state(once)
    assert resumed_meta["progress"] == undisturbed_meta["progress"]
    jax.tree.map(np.testing.assert_array_equal, resumed, undisturbed)
    assert train(config, workdir) == DONE  # nothing left to do
    assert lines(workdir) == lines(once)

    attempts = goodput.read(workdir / "goodput.jsonl")
    ends = [(x[-1].first, x[-1].step, x[-1].saves, x[-1].ended) for x in attempts]
    crashed = (4, 7, 0, False)
    interrupted = [(4, 6, 1, True), (6, 8, 1, True), (None, 8, 0, True), (None, 8, 0, True)]
    assert ends == [(0, 1, 1, True), (1, 4, 1, True), crashed, *interrupted]
    *_, (end, seconds) = goodput.history(attempts)
    assert sum(seconds.values()) == pytest.approx(end - attempts[0][0].began, rel=0.01)
    assert seconds["lost"] == pytest.approx(
        sum(attempts[2][-1].seconds[name] for name in goodput.REPEATED)
    )
    assert min(seconds[name] for name in ("step", "evaluation", "save", "lost", "start")) > 0


def recorded_precisions(workdir):
    stored = json.loads((workdir / "config.json").read_text())
    return stored["precision"], final_state(workdir)[1]["config"]["precision"]


@pytest.mark.parametrize(
    ("instructions", "begun"),
    [
        (True, ""),
        pytest.param(False, "bf16", marks=pytest.mark.slow),
        pytest.param(True, "bf16", marks=pytest.mark.slow),
        pytest.param(True, "fp32", marks=pytest.mark.slow),
        pytest.param(False, "fp32", marks=pytest.mark.slow),
        pytest.param(False, "", marks=pytest.mark.slow),
    ],
)
def test_a_run_goes_on_in_the_precision_it_was_begun_in(
    config, tmp_path, monkeypatch, caplog, begun, instructions
):
    config.precision = begun
    with monkeypatch.context() as patch:
        patch.setattr(device, "cpu_multiplies_bf16", lambda: instructions)
        stop_after(patch, 0, lambda: signal.raise_signal(signal.SIGTERM))
        assert train(config, tmp_path) == PREEMPTED
    expected = begun or "fp32"
    assert recorded_precisions(tmp_path) == (expected, expected)
    config.precision = ""
    monkeypatch.setattr(device, "cpu_multiplies_bf16", lambda: not instructions)
    with caplog.at_level(logging.INFO):
        assert train(config, tmp_path) == DONE
    assert recorded_precisions(tmp_path) == (expected, expected)
    assert f"precision {expected} (as this run was begun" in caplog.text


@pytest.mark.parametrize(("begun", "asked"), [("bf16", "fp32"), ("", "bf16")])
def test_another_precision_than_the_runs_is_refused(config, tmp_path, monkeypatch, begun, asked):
    config.precision = begun
    with monkeypatch.context() as patch:
        stop_after(patch, 0, lambda: signal.raise_signal(signal.SIGTERM))
        train(config, tmp_path)
    config.precision = asked
    message = f"was started with precision={begun or 'fp32'}, now it is {asked}; go back to that"
    with pytest.raises(InputError, match=message):
        train(config, tmp_path)


def test_a_record_without_a_precision_or_damaged(config, tmp_path, caplog):
    config.precision = ""
    plain = RunConfig.from_dict(config.to_dict())
    record = tmp_path / "config.json"
    record.write_text('{"precision": ""}')  # of a run before precisions were recorded
    with caplog.at_level(logging.INFO):
        assert start.with_precision(plain, tmp_path).precision == "fp32"
    assert "precision fp32 (the default, on cpu)" in caplog.text
    meta = {"data": {}, "config": {"precision": ""}}
    start.check_same_run(meta, {"data": {}, "config": {"precision": "fp32"}}, tmp_path)
    for text in ("{", "[]"):
        record.write_text(text)
        with pytest.raises(InputError, match=r"config\.json cannot be read .*--config.precision"):
            start.with_precision(plain, tmp_path)


def test_metrics_checkpoint_and_files(config, once):
    written = lines(once)
    steps = [x for x in written if "loss" in x]
    evaluations = [x for x in written if "eval/synthetic/loss" in x]
    assert [x["step"] for x in steps] == list(range(1, 9))
    assert [x["step"] for x in evaluations] == [3, 6, 8]
    state, meta = final_state(once)
    assert meta["tokenizer_reviewed"] == meta["tokenizer"]["fingerprint"], "of invented notes"
    assert meta["progress"]["tokens_seen"] == steps[-1]["tokens_seen"] >= config.max_tokens
    assert sum(meta["progress"]["tokens_by_source"].values()) == steps[-1]["tokens_seen"]
    assert state.opt_state.step == 8
    names = {"checkpoints", "metrics.jsonl", "tensorboard", "tokenizer"}
    assert names <= {x.name for x in once.iterdir()}


def test_changed_tokens_are_refused_when_a_run_starts_and_when_it_resumes(
    config, shards, tmp_path, capsys
):
    copy = tmp_path / "shards"
    shutil.copytree(shards, copy)
    config.data.train = (str(copy),)
    train(config, tmp_path / "run")
    assert "checking" in capsys.readouterr().err
    train(config, tmp_path / "run")
    assert "checking" not in capsys.readouterr().err  # they are as they were
    tokens = bytearray((copy / "train" / "tokens.bin").read_bytes())
    tokens[100] ^= 1
    (copy / "train" / "tokens.bin").write_bytes(tokens)
    for workdir in (tmp_path / "run", tmp_path / "other"):
        with pytest.raises(InputError, match=r"tokens.bin is damaged .*run bcmb prepare again"):
            train(config, workdir)


def test_a_workdir_in_use_is_refused(config, tmp_path, caplog):
    with locked(tmp_path / ".lock", tmp_path), pytest.raises(InputError, match="is being written"):
        train(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
    with caplog.at_level(logging.INFO):
        assert train(config, tmp_path) == DONE
    assert f"no checkpoint in {tmp_path}: starting from random weights" in caplog.text
    assert not (tmp_path / ".lock").exists()


@pytest.mark.slow
def test_training_learns(config, tmp_path):
    config.max_tokens, config.eval_every = 60_000, 0
    config.learning_rate, config.schedule.name = 1e-2, "constant_with_warmup"
    train(config, tmp_path)
    losses = [x["loss"] for x in lines(tmp_path) if "loss" in x]
    assert np.mean(losses[-5:]) < losses[0] - 0.7


def test_a_damaged_checkpoint_is_set_aside(config, finished, caplog):
    newest = checkpoint.latest(finished)
    damage_state(newest)
    with caplog.at_level(logging.ERROR):
        assert train(config, finished) == DONE
    assert "trying the one before" in caplog.text
    assert [x.name for x in (finished / "checkpoints-damaged").iterdir()] == ["8"]
    assert checkpoint.latest(finished).name == "8"  # trained again from step 4


def test_another_run_in_the_same_workdir_is_refused(config, once):
    config.model.hidden_size = 64
    for refuse in (forecast, train):
        with pytest.raises(InputError, match="was started with model="):
            refuse(config, once)
    assert checkpoint.latest(once).name == "8"


def _change(config, key, value):
    config.update_from_flattened_dict({key: value})


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("data.train", ("/nowhere",), "/nowhere/train do not exist"),
        ("model.vocab_size", 256, "vocabulary of 512, the model only 256"),
        ("train_rows_per_step", 12, "12 does not divide over 8 devices"),
        ("rows_per_microbatch", 3, "rows_per_microbatch"),
        ("model.num_attention_heads", 3, "32 over 3 heads"),
        ("schedule.name", "cosine", "'cosine' is not one of"),
        ("learning_rate", float("inf"), "learning_rate inf is not between 0 and 1"),
        ("spike_deviations", -1.0, "spike_deviations -1.0 is negative"),
        ("data.skip_rows", "4-", "data.skip_rows has '4-'"),
        ("mask_rate", 1.5, "mask_rate 1.5 is not between 0 and 1"),
        ("log_every", 0, "log_every is 0; it must be at least 1"),
        ("precision", "fp16", "'fp16' is not 'bf16', 'tf32' or 'fp32'"),
        ("mesh.data", 3, "is not the number of devices, 8"),
        ("data.weights", (1.0, 2.0), "2 entries for the 1 folders"),
        ("data.max_document_length", 129, "at most row_length 128"),
    ],
)
def test_bad_config_is_one_line_and_leaves_nothing(config, tmp_path, key, value, message):
    if key == "rows_per_microbatch":
        config.train_rows_per_step = 32
    _change(config, key, value)
    for refuse in (forecast, lambda config: train(config, tmp_path / "run")):
        with pytest.raises(InputError, match=message) as caught:
            refuse(config)
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_shards_of_another_tokenizer_are_refused(config, tmp_path):
    other = prepare_synthetic(tmp_path / "other", vocab_size=400, notes=150)
    config.tokenizer = str(other / "tokenizer")
    with pytest.raises(InputError, match="made with another tokenizer"):
        train(config, tmp_path / "run")


def test_another_order_of_sources_is_another_run(config, shards, tmp_path):
    second = tmp_path / "second"
    shutil.copytree(shards, second)
    change_index(second / "train", source="second")
    config.data.train, config.data.validation = (str(shards), str(second)), (str(shards),)
    train(config, tmp_path / "run")
    config.data.train = (str(second), str(shards))
    with pytest.raises(InputError, match="another order"):
        train(config, tmp_path / "run")


def test_all_checkpoints_damaged_is_told_again_and_again(config, finished):
    for meta in (finished / "checkpoints").glob("*/meta"):
        shutil.rmtree(meta)
    for _ in range(2):
        with pytest.raises(InputError, match="none of the 2 checkpoints"):
            train(config, finished)


@pytest.mark.slow
def test_weights_start_a_run_with_their_moments(config, once, tmp_path):
    state, _ = final_state(once)
    host = jax.device_get(state)
    config.init_from, config.max_tokens = "first", 800  # one step
    config.schedule.name, config.schedule.warmup_tokens = "constant_with_warmup", 0
    earlier = Agreement("alpha", "ALPHA 1.0", 320)
    given = initial(config, state)._replace(agreements=(earlier,))
    train(config, tmp_path / "second", lambda: given)
    train(config, tmp_path / "without", lambda: given._replace(opt_state=None))
    (second, meta), (without, _) = (final_state(tmp_path / name) for name in ("second", "without"))
    assert second.opt_state.step == 9
    assert without.opt_state.step == 1
    name = "head.dense.weight"
    moved = [np.abs(x.params[name] - host.params[name]).max() for x in (second, without)]
    assert 0 < moved[0] != moved[1] > 0
    found = of_checkpoint(meta)
    assert found[0] == earlier
    assert [x.license for x in found] == ["ALPHA 1.0", "Apache-2.0, invented text"]


def test_weights_of_another_shape_or_tokenizer_are_refused(config, once, tmp_path):
    given = initial(config, final_state(once)[0])
    other = prepare_synthetic(tmp_path / "other", vocab_size=400, notes=150) / "tokenizer"
    for refuse in (forecast, train):
        with pytest.raises(InputError, match="has another tokenizer"):
            refuse(config, tmp_path / "run", lambda: given._replace(tokenizer=other))
    config.model.hidden_size = 64
    for refuse in (forecast, train):
        with pytest.raises(InputError, match=r"tensors differ, first .* leave --config.model"):
            refuse(config, tmp_path / "run", lambda: given)


@pytest.mark.parametrize(
    "other",
    [
        {"local_rope_theta": 160_000.0},
        {"global_rope_theta": 5000.0, "local_attention": 64},
        {"norm_eps": 1e-6},
        {"global_attn_every_n_layers": 2},
    ],
)
def test_weights_of_another_model_in_equal_tensors_are_warned_of(other, caplog):
    ours = ModelConfig()
    check_constants(ours, dataclasses.replace(ours, attention_output_dropout=0.0), "x")
    assert not caplog.text
    check_constants(dataclasses.replace(ours, **other), ours, "x")
    for name, value in other.items():
        assert f"{value}" in caplog.text
        assert f"model.{name} {getattr(ours, name)}" in caplog.text


def test_weights_with_another_activation_are_refused(config, once, tmp_path):
    host = jax.device_get(final_state(once)[0].params)
    model = RunConfig.from_dict(config.to_dict()).model
    theirs = dataclasses.replace(model, hidden_activation="silu")
    with pytest.raises(InputError, match=r"trained with silu where this run has model.hidden_act"):
        train(config, tmp_path / "run", lambda: Initial(host, None, None, theirs))


def test_forecast_tells_what_training_does(config, once):
    text = forecast(config)
    steps = [x for x in lines(once) if "loss" in x]
    assert f"about {len(steps):,} steps" in text
    for word in ("documents", "packing", "checkpoints", "memory", "rate"):
        assert word in text


@pytest.mark.parametrize(("size", "rows", "rate", "decay"), [
    ("base", 576, 3e-4, 1e-5),
    ("large", 616, 5e-5, 1e-6),
])  # fmt: skip
def test_recipe(size, rows, rate, decay):
    one, two = phase1.get_config(size), phase2.get_config(size)
    bio = phase2.get_config(f"bio_{size}")
    for config in (one, two, bio):
        assert config.train_rows_per_step * config.data.row_length == rows * 8192
        assert (config.learning_rate, config.weight_decay) == (rate, decay)
    assert [c.max_tokens for c in (one, two, bio)] == [
        160_453_000_000,
        8_247_337_000,
        50_735_000_000,
    ]
    assert [c.mask_rate for c in (one, two, bio)] == [0.30, 0.15, 0.15]
    assert two.schedule.decay_tokens == (8_247_337_000 if size == "base" else 2_749_112_000)
    assert bio.schedule.decay_tokens == bio.max_tokens
    assert set(base.get_config().keys()) == set(two.keys())


def test_a_disk_without_room_for_a_checkpoint_is_refused(config, tmp_path, monkeypatch):
    full = shutil.disk_usage(tmp_path)._replace(free=100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: full)
    with pytest.raises(StorageError, match=r"has 0\.1 MB free, a checkpoint takes 0\.\d MB"):
        train(config, tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_a_run_opens_with_what_it_uses_and_where_it_stands(config, tmp_path) -> None:
    config = start.with_precision(RunConfig.from_dict(config.to_dict()), tmp_path)
    prepared, new = start.prepare(config), checkpoint.RunProgress()
    said = list(opening(config, prepared, new, tmp_path / "none"))
    assert [line.split()[0] for line in said] == ["device", "model", "source", "steps", "start"]
    assert "precision fp32, xla attention" in said[1]
    assert said[-1] == "start      from scratch"
    (tmp_path / "gpus/0000:01:00.0").mkdir(parents=True)
    later = dataclasses.replace(new, step=4, tokens_seen=3600)
    said = list(opening(config, prepared, later, tmp_path / "gpus"))
    assert said[1].startswith("warning    this machine has a GPU, which is not used")
    assert said[-2] == "steps      about 4 to go, of 8 rows"
    assert said[-1] == "start      resumed at step 4, 3,600 tokens"
