# SPDX-License-Identifier: Apache-2.0
"""Kills and signals at many moments of real runs, which must end as an undisturbed run does.

About a quarter of an hour on two cores: `python -m pytest -m slow tests/training/test_sweeps.py`;
`make faults` runs every long test of faults.

A chain of lives of one run is disturbed again and again. After each disturbance the newest
checkpoint and the metrics are compared with those of the undisturbed run at the same step.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.errors import DONE, PREEMPTED
from bcmb_jax.training.checkpoint import load, read_meta
from tests.fixtures.processes import ROOT, catches, free_port
from tests.fixtures.runs import lines
from tests.fixtures.shards import change_index

pytestmark = pytest.mark.slow

SAVE_EVERY, EVAL_EVERY = 5, 4
SMALL = (
    "--config.data.row_length=128",
    "--config.data.max_document_length=128",
    "--config.train_rows_per_step=8",
    "--config.max_tokens=200_000",  # a fast machine makes fifty steps between two moments
    "--config.model.vocab_size=512",
    "--config.model.hidden_size=32",
    "--config.model.num_hidden_layers=2",
    "--config.model.intermediate_size=48",
    "--config.model.attention_output_dropout=0.1",
    "--config.eval_tokens=8000",
    f"--config.eval_every={EVAL_EVERY}",
    "--config.log_every=1",
)
TERM, USR1 = signal.SIGTERM, signal.SIGUSR1
# A disk that takes three seconds to make a checkpoint's name final.
SLOW_DISK = """
import os, time
rename = os.rename
def slowly(source, target, **others):
    if os.fspath(source).endswith(".orbax-checkpoint-tmp"):
        time.sleep(3)
    return rename(source, target, **others)
os.rename = slowly
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Three sources that share a tokenizer."""
    folder = tmp_path_factory.mktemp("sources")
    first = prepare_synthetic(folder / "data", vocab_size=512, notes=150)
    for name in ("second", "third"):
        shutil.copytree(first, first.with_name(name))
        for index in first.with_name(name).glob("*/index.json"):
            change_index(index.parent, source=name)
    names = tuple(str(first.with_name(name)) for name in (first.name, "second", "third"))
    return f"--config.data.train={names}", f"--config.data.validation={(names[0],)}"


class Life:
    """The processes of a run from one start to their end."""

    def __init__(self, workdir, count, *given, **variables):
        self.workdir, self.restored = workdir, max(finished(workdir), default=0)
        self.logs = [workdir.with_name(f"{workdir.name}-{i}.log") for i in range(count)]
        self._metrics = workdir / "metrics.jsonl"
        self._before = self._metrics.stat().st_ino if self._metrics.exists() else None
        environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_NUM_CPU_DEVICES": "1"} | variables
        command = ["scripts/train.py", "--config=configs/tiny.py", f"--workdir={workdir}"]
        if count > 1:
            command += [f"--coordinator=localhost:{free_port()}", f"--processes={count}"]
        self.processes = []
        for i, file in enumerate(self.logs):
            own = [f"--process={i}", "--wait=120"] if count > 1 else []
            with file.open("w") as out:
                arguments = [sys.executable, *command, *SMALL, *own, *given]
                self.processes.append(
                    subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=out, stderr=out)
                )

    def log(self):
        """Return what the processes have printed."""
        return "".join(file.read_text() for file in self.logs)

    def steps(self):
        """Return how many steps the metrics have from this life, which first replaces the file."""
        if not self._metrics.exists() or self._metrics.stat().st_ino == self._before:
            return 0
        return last_step(self.workdir) - self.restored

    def wait_until(self, condition, seconds=300):
        """Wait until a condition holds; the processes must not end before."""
        until = time.monotonic() + seconds
        while not condition():
            assert all(p.poll() is None for p in self.processes), self.log()
            assert time.monotonic() < until, self.log()
            time.sleep(0.002)

    def send(self, number, targets):
        """Send a signal to the processes of these numbers."""
        for i in targets:
            self.processes[i].send_signal(number)

    def end(self, seconds=300):
        """Wait for the end; return the exit statuses."""
        try:
            return [p.wait(seconds) for p in self.processes]
        finally:
            for p in self.processes:
                p.kill()


def last_step(workdir):
    """Return the last step that the metrics hold whole."""
    file = workdir / "metrics.jsonl"
    text = file.read_text().rpartition("\n")[0] if file.exists() else ""
    return int(text.rpartition('{"step": ')[2].partition(",")[0]) if text else 0


def finished(workdir):
    """Return the steps of the checkpoints."""
    return [int(x.name) for x in workdir.glob("checkpoints/*") if x.name.isdigit()]


def unfinished(workdir):
    """Return the names of checkpoints that are being written, or were when a process died."""
    return {x.name for x in workdir.glob("checkpoints/*.orbax-checkpoint-tmp")}


class Undisturbed:
    """A run that nobody disturbs, with a checkpoint of every step."""

    def __init__(self, workdir, count, *given):
        self.workdir = workdir
        every = ("--config.save_every=1", "--config.keep_checkpoints=1000")
        life = Life(workdir, count, *given, *every)
        assert life.end(600) == [DONE] * count, life.log()

    def judge(self, workdir):
        """Compare the newest checkpoint and the metrics up to it; return its step, or 0."""
        step = max(finished(workdir), default=0)
        if not step:
            return 0
        _, meta = load(workdir / "checkpoints" / str(step))  # raises if a tensor is damaged
        right = read_meta(self.workdir / "checkpoints" / str(step))
        assert meta["checksums"] == right["checksums"]
        assert meta["progress"] == right["progress"]
        own, due = ([x for x in lines(w) if x["step"] <= step] for w in (workdir, self.workdir))
        assert own == due[: len(own)]
        # Only an evaluation of this very step may be missing: the next start makes it.
        assert all("loss" not in x and x["step"] == step for x in due[len(own) :])
        return step

    def compare_end(self, workdir):
        """Compare the last checkpoint and all metrics."""
        assert self.judge(workdir) == max(finished(self.workdir))
        assert lines(workdir) == lines(self.workdir)


@pytest.fixture(scope="module")
def alone(tmp_path_factory, sources):
    return Undisturbed(tmp_path_factory.mktemp("alone") / "run", 1, *sources)


def kill(life, kind, chance):
    """Kill a life with SIGKILL: while it starts, after some steps, or in a save."""
    before = unfinished(life.workdir)
    if kind == "start":
        until = time.monotonic() + chance.uniform(0, 8)  # or the first step, on a fast machine
        life.wait_until(lambda: time.monotonic() > until or life.steps())
    elif kind == "step":
        steps = chance.randint(1, 7)
        life.wait_until(lambda: life.steps() >= steps)
        time.sleep(chance.uniform(0, 0.05))
    else:
        life.wait_until(lambda: unfinished(life.workdir) - before)
        time.sleep(chance.uniform(0, 0.03))
    life.send(signal.SIGKILL, (0,))
    assert life.end() == [-signal.SIGKILL]
    return bool(unfinished(life.workdir) - before)


def test_twenty_kills_end_equal(tmp_path, sources, alone):
    chance, workdir, results = random.Random(0), tmp_path / "run", []
    kinds = ["start"] * 5 + ["step"] * 7 + ["save"] * 8
    chance.shuffle(kinds)
    given = (*sources, f"--config.save_every={SAVE_EVERY}")
    for kind in kinds:
        saved = max(finished(workdir), default=0)
        in_save = kill(Life(workdir, 1, *given), kind, chance)
        results.append((kind, in_save, last_step(workdir), alone.judge(workdir)))
        assert results[-1][-1] >= saved
    print("\nkind of kill, in a save, step reached, step saved:", *results, sep="\n")
    assert sum(in_save for _, in_save, _, _ in results) >= 5
    life = Life(workdir, 1, *given)
    assert life.end(600) == [DONE], life.log()
    alone.compare_end(workdir)


# The moment, the signals, and the processes of two that get them.
MOMENTS = (
    ("compilation", (TERM,), (0,)),
    ("import", (USR1,), (0, 1)),
    ("restore", (USR1, TERM), (1,)),
    ("evaluation", (TERM,), (1,)),
    ("last save", (USR1, TERM), (0, 1)),
    ("step", (USR1, TERM), (0,)),
    ("import", (TERM,), (1,)),
    ("evaluation", (USR1, TERM), (0, 1)),
    ("restore", (USR1,), (0, 1)),
    ("last save", (USR1, TERM), (1,)),
)


def tell(life, moment, numbers, targets, chance):
    """Send signals at a moment of a life."""
    ledger = life.workdir / "goodput.jsonl"
    conditions = {
        "import": lambda: True,
        "restore": lambda: "precision fp32" in life.log(),
        # The ledger of time knows that the first step has begun, of which most is compilation.
        "compilation": lambda: ledger.exists() and '"first": 0' in ledger.read_text(),
        # The metrics are one step behind.
        "evaluation": lambda: life.steps() and last_step(life.workdir) % EVAL_EVERY == 3,
    }
    life.wait_until(lambda: all(catches(p, x) for p in life.processes for x in (TERM, USR1)))
    life.wait_until(conditions.get(moment, lambda: life.steps() >= 2))
    time.sleep(chance.uniform(0, {"evaluation": 0.1, "last save": 0.1}.get(moment, 1.0)))
    life.send(numbers[0], targets)
    if moment == "last save":
        life.wait_until(lambda: unfinished(life.workdir))
    for number in numbers[1:]:
        time.sleep(chance.uniform(0, 0.5))
        assert moment != "last save" or unfinished(life.workdir)
        life.send(number, targets)


@pytest.mark.parametrize("count", [1, 2])
def test_ten_signals_lose_nothing(tmp_path, sources, request, count):
    chance, workdir, results = random.Random(count), tmp_path / "run", []
    if count == 1:
        right = request.getfixturevalue("alone")
    else:
        right = Undisturbed(tmp_path / "undisturbed", count, *sources)
    (tmp_path / "sitecustomize.py").write_text(SLOW_DISK)
    given = (*sources, "--config.save_every=0")
    for moment, numbers, targets in MOMENTS:
        variables = {}
        if moment == "compilation":  # nothing is in this cache
            variables["JAX_COMPILATION_CACHE_DIR"] = str(tmp_path / "compiled")
        if moment == "last save":
            variables["PYTHONPATH"] = f"{tmp_path}:{ROOT}"
        life = Life(workdir, count, *given, **variables)
        tell(life, moment, numbers, targets if count > 1 else (0,), chance)
        assert life.end() == [PREEMPTED] * count, life.log()
        saved, said = right.judge(workdir), life.log()
        results.append((moment, saved, "in this evaluation" in said))
        assert saved == last_step(workdir), results  # not a step is lost
        if "stopping before" not in said:
            assert f"saved at step {saved}; the same command resumes" in said
        assert "Traceback" not in said
        assert not unfinished(workdir)
    print(f"\n{count} processes: moment, step saved, in an evaluation:", *results, sep="\n")
    assert any(in_evaluation for _, _, in_evaluation in results)
    life = Life(workdir, count, *given)
    assert life.end(600) == [DONE] * count, life.log()
    right.compare_end(workdir)


def test_processes_change_and_losses_do_not(tmp_path, sources, alone):
    """Two processes, four, and one, each with a mesh of its own, stopped by a signal between."""
    workdir, taken = tmp_path / "run", []
    for count, mesh in ((2, {"data": 2}), (4, {"data": 2, "fsdp": 2}), (2, {"fsdp": 2}), (1, {})):
        keys = [f"--config.mesh.{axis}={size}" for axis, size in mesh.items()]
        life = Life(workdir, count, *sources, f"--config.save_every={SAVE_EVERY}", *keys)
        if count > 1:
            life.wait_until(lambda life=life: life.steps() >= 7)
            life.send(TERM, (count - 1,))
        assert life.end(600) == [PREEMPTED if count > 1 else DONE] * count, life.log()
        taken.append(last_step(workdir))
    print("\nsteps after 2, 4, 2 and 1 processes:", *taken)
    own, right = lines(workdir), lines(alone.workdir)
    assert [x["step"] for x in own] == [x["step"] for x in right]
    losses = [np.array([x["loss"] for x in y if "loss" in x]) for y in (own, right)]
    print("largest relative difference", np.abs(losses[0] / losses[1] - 1).max())
    np.testing.assert_allclose(*losses, rtol=1e-6)
