# SPDX-License-Identifier: Apache-2.0
"""A training command starts as meant: its folder, its data, and the sizes of its weights."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bcmb_jax.agreements import of_checkpoint
from bcmb_jax.commands import train as command
from bcmb_jax.commands.options.train import default_workdir, find_config
from bcmb_jax.config import RunConfig
from bcmb_jax.errors import DONE, InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.training.checkpoint import TrainState, newest_meta, save_state
from configs import base, phase1
from conversion.convert import convert
from conversion.export import write_huggingface
from tests.fixtures.modes import modes
from tests.fixtures.processes import catches, finish, start
from tests.fixtures.shards import write_shards
from tests.fixtures.tiny_weights import TINY, random_weights

ROOT = Path(__file__).resolve().parents[2]
OTHERS = {
    "deeper": {"num_hidden_layers": 5, "global_attn_every_n_layers": 2},
    "wider": {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4},
    "other window and frequencies": {"local_attention": 8, "global_rope_theta": 900.0},
}


def run(arguments: list[str], folder: Path) -> subprocess.CompletedProcess:
    """Run the training command in `folder`."""
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "train.py", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        umask=0o022,
    )


def test_signals_during_the_imports_end_with_75_and_leave_nothing(tmp_path) -> None:
    process = start("scripts/train.py", "--config=configs/tiny.py", f"--workdir={tmp_path / 'run'}")
    while not catches(process, signal.SIGUSR1):  # the script's first lines; SIGTERM is first
        time.sleep(0.001)
    process.send_signal(signal.SIGUSR1)
    process.send_signal(signal.SIGTERM)
    ((status, text),) = finish([process])
    assert status == 75, text
    assert "SIGUSR1: stopping before the first step\n" in text
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["configs/phase2.py:bio_large", "--plan"],
        ["configs/phase1.py", "--config.init_from=nowhere"],
        pytest.param(["configs/phase1.py"], marks=pytest.mark.slow),
        pytest.param(["configs/tiny.py", "--config.data.train=()"], marks=pytest.mark.slow),
    ],
    ids=" ".join,
)
def test_without_data_a_run_says_in_one_line_what_to_give(arguments, tmp_path) -> None:
    result = run(["--config", f"{ROOT}/{arguments[0]}", *arguments[1:]], tmp_path)
    assert result.returncode == 2
    assert result.stderr.startswith("error: no data to train on")
    assert "--config.data.train=" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not result.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("config", "workdir"),
    [
        ("phase1.py", "runs/phase1-base"),
        ("phase1.py:large", "runs/phase1-large"),
        ("phase2.py:bio_base", "runs/phase2-bio_base"),
        ("tiny.py", "runs/tiny"),
        ("continue.py:shards/notes", "runs/continue-notes"),
        ("continue.py:/data/shards/other/", "runs/continue-other"),
    ],
)
def test_a_run_has_a_folder_of_its_own_unless_one_is_given(config, workdir) -> None:
    assert default_workdir(*find_config(f"{ROOT}/configs/{config}")) == Path(workdir)
    assert default_workdir(*find_config(config.replace(".py", ""))) == Path(workdir)


@pytest.fixture
def model_folder(folder, tiny_tokenizer):
    """`model_folder(**changes)` is a Hugging Face folder of the tiny model with other sizes."""

    def make(**changes) -> Path:
        config = dataclasses.replace(TINY, **changes)
        shutil.rmtree(folder)
        folder.mkdir()
        write_huggingface(random_weights(config)._replace(tokenizer=tiny_tokenizer), folder)
        return folder

    return make


def sizes(values: dict) -> ModelConfig:
    return RunConfig.from_dict(values).model


@pytest.mark.parametrize("changes", [{}, *OTHERS.values()], ids=["tiny", *OTHERS])
@pytest.mark.parametrize("start", ["base", "large"])
def test_sizes_come_from_the_weights(model_folder, tmp_path, changes, start) -> None:
    values = phase1.get_config(start).to_dict()
    values["init_from"] = str(model_folder(**changes))
    initial = command.take_sizes(values, set(), tmp_path)()
    # Dropout is no size: the config file decides it, not the folder.
    wanted = dataclasses.replace(TINY, **changes, attention_output_dropout=0.1)
    assert sizes(values) == initial.model == wanted


def test_sizes_come_from_a_checkpoint_of_ours(folder, tmp_path) -> None:
    convert(str(folder), "orbax", tmp_path / "ours")
    values = base.get_config().to_dict() | {"init_from": str(tmp_path / "ours")}
    command.take_sizes(values, set(), tmp_path)
    assert sizes(values) == dataclasses.replace(TINY, attention_output_dropout=0.1)


def test_given_sizes_stay(folder, tmp_path) -> None:
    values = base.get_config().to_dict() | {"init_from": str(folder)}
    values["model"] |= {"global_rope_theta": 7.0, "num_hidden_layers": 9}
    command.take_sizes(values, {"model.global_rope_theta", "seed"}, tmp_path)
    assert sizes(values).global_rope_theta == 7.0
    assert sizes(values).num_hidden_layers == TINY.num_hidden_layers


def test_a_run_with_checkpoints_keeps_its_sizes_without_the_weights(tmp_path) -> None:
    state = TrainState(random_weights().params, None)
    save_state(tmp_path / "checkpoints" / "8", state, {"config": {"model": TINY.as_dict()}})
    (tmp_path / "checkpoints" / "12").mkdir()  # damaged
    values = base.get_config().to_dict() | {"init_from": "gone"}
    load = command.take_sizes(values, set(), tmp_path)
    assert sizes(values).hidden_size == TINY.hidden_size
    with pytest.raises(InputError, match="gone"):
        load()


def test_weights_that_are_not_there_are_told_before_anything_is_written(tmp_path) -> None:
    values = base.get_config().to_dict() | {"init_from": str(tmp_path / "missing")}
    with pytest.raises(InputError, match="missing"):
        command.take_sizes(values, set(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_wider_model_is_continued_and_resumed_without_a_model_flag(
    model_folder, tiny_tokenizer, tmp_path
) -> None:
    """The command as in README, on a folder of other sizes than base; then with it gone."""
    weights = model_folder(**OTHERS["wider"])
    shards = write_shards(tmp_path / "notes", tiny_tokenizer, documents=30)
    arguments = ["--config", f"{ROOT}/configs/continue.py:{shards}", "--config.precision=fp32"]
    arguments += [f"--config.init_from={weights}", "--config.train_rows_per_step=2"]
    arguments += ["--config.data.row_length=64", "--config.data.max_document_length=64"]
    plan = run([*arguments, "--plan"], tmp_path)
    assert plan.returncode == 0, plan.stderr
    assert "model        " in plan.stdout
    for _ in range(2):
        result = run([*arguments, "--license=DUA 12"], tmp_path)
        assert result.returncode == DONE, result.stderr
        assert "notes (DUA 12)" in result.stderr
        shutil.rmtree(weights, ignore_errors=True)
    stored = json.loads((tmp_path / "runs" / "continue-notes" / "config.json").read_text())
    assert stored["model"]["hidden_size"] == 32
    assert stored["model"]["num_attention_heads"] == 4
    assert modes(tmp_path / "runs") == {0o700, 0o600}
    record = of_checkpoint(newest_meta(tmp_path / "runs" / "continue-notes"))
    assert [(x.source, x.license) for x in record][1] == ("notes", "DUA 12")
