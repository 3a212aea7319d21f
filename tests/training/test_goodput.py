# SPDX-License-Identifier: Apache-2.0
"""The ledger of a run's time sums to the clock, tells lost work, and what devices waited for."""

import json
import math
import re
import time

import jax
import jax.numpy as jnp
import pytest

from bcmb_jax.training import clock as clocks
from bcmb_jax.training import goodput
from bcmb_jax.training.clock import RunClock, process_start
from bcmb_jax.training.goodput import PHASES, history, read, summary
from tests.fixtures.processes import start


def totals(attempts):
    *_, (_, seconds) = history(attempts)
    return seconds


def attempt(began, lines, ended=False):
    """Lines of an attempt: `(first, step, saves, seconds by phase)`."""
    written = []
    for first, step, saves, seconds in lines:
        seconds = dict.fromkeys(PHASES, 0.0) | seconds
        written.append(
            dict(
                began=began,
                time=began + sum(seconds.values()),
                first=first,
                step=step,
                saves=saves,
                ended=False,
                seconds=seconds,
            )
        )
    written[-1]["ended"] = ended
    return [json.dumps(line) + "\n" for line in written]


# A compilation is booked when it ends; until then it looks like the step that needed it.
COMPILING = (0, 1, 0, {"start": 10.0, "step": 18.0})
COMPILED = (0, 2, 0, {"start": 10.0, "compile": 20.0, "step": 1.0})
STARTED = (None, 0, 0, {"start": 10.0})
SAVED = (0, 4, 1, {"start": 10.0, "compile": 20.0, "step": 40.0, "data": 1.0, "save": 2.0})
BEYOND = (0, 7, 1, SAVED[3] | {"step": 65.0, "data": 2.0, "evaluation": 4.0})
AGAIN = (4, 9, 2, {"start": 10.0, "step": 50.0, "save": 3.0})


def test_steps_that_are_made_again_are_lost(tmp_path):
    file = tmp_path / "goodput.jsonl"
    # Killed in step 7, in the second try before the first step; then it ends. A line is cut off.
    lines = [
        *attempt(1000.0, [STARTED, COMPILING, COMPILED, SAVED, BEYOND]),
        '{"began": 1000.0, "ti',
        *attempt(1200.0, [(None, 0, 0, {"start": 2.0}), (None, 0, 0, {"start": 5.0})]),
        "[3]\n",
        *attempt(1300.0, [STARTED, AGAIN], ended=True),
    ]
    file.write_text("".join(lines))
    attempts = read(file)
    assert attempts[0][1].seconds | {"step": 1.0, "compile": 17.0} == attempts[0][1].seconds
    found = totals(attempts)
    assert found.pop("lost") == 25 + 1 + 4
    assert found.pop("down") == (1200 - 1103) + (1300 - 1205)
    assert found == dict(
        step=40 + 50, data=1, evaluation=0, save=2 + 3, compile=20, start=25, end=0
    )
    assert sum(totals(attempts).values()) == 1363 - 1000
    times, seconds = zip(*history(attempts), strict=True)
    assert [sum(x.values()) for x in seconds] == pytest.approx([time - 1000 for time in times])
    text = summary(attempts)
    assert text.startswith("goodput 52.6% of 2.9 min in 3 attempts: step 90.0 s")
    # One failure in 171 s of which training knew; a save took (2 + 3) / (1 + 2) s.
    every = math.sqrt(2 * (5 / 3) * 171) / ((65 + 2 + 50) / (7 + 5))
    assert f"--config.save_every={every:.0f}: a save" in text
    assert "a failure every 2.9 min (1 seen)" in text


def test_a_fall_back_behind_an_earlier_attempt_loses_both(tmp_path):
    file = tmp_path / "goodput.jsonl"
    lines = attempt(0.0, [STARTED, SAVED, BEYOND], ended=True)
    lines += attempt(200.0, [STARTED, (7, 9, 0, {"start": 10.0, "step": 8.0})])
    file.write_text("".join(lines + attempt(300.0, [STARTED, (4, 5, 0, {"start": 10.0})])))
    assert totals(read(file))["lost"] == 30 + 8
    assert totals(read(file))["step"] == 40


def test_without_a_failure_the_assumption_is_told(tmp_path):
    file = tmp_path / "goodput.jsonl"
    file.write_text("".join(attempt(0.0, [STARTED, SAVED], ended=True)))
    every = math.sqrt(2 * 2 * 86_400) / (41 / 4)
    assert f"save_every={every:.0f}: " in summary(read(file))
    assert "a failure every 24.0 h (none seen, an assumption)" in summary(read(file))


def test_data_hold_up_only_a_device_that_is_free(tmp_path):
    step = jax.jit(lambda x: jax.lax.fori_loop(0, 300, lambda _, x: jnp.sin(x @ x), x))
    given = jnp.ones((300, 300))
    step(given).block_until_ready()
    with RunClock(tmp_path / "goodput.jsonl") as clock:
        clock.switch("data", 1)
        time.sleep(0.1)
        first = clock.switch("step", 1)
        assert 0.1 <= first < 1
        result = step(given)
        clock.dispatched(result)
        clock.switch("data", 2)
        time.sleep(0.02)
        assert clock.switch("step", 2) == 0 or result.is_ready()
        clock.switch("data", 2)
        begun, busy = time.monotonic(), 0.0
        while not result.is_ready():
            busy = time.monotonic() - begun
            time.sleep(0.001)
        time.sleep(0.3)
        waited, passed = clock.switch("step", 2), time.monotonic() - begun
        assert 0 < waited < passed - busy + 0.002
        jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((3, 3)))
        clock.switch("save", 2)
        clock.switch("end", 2)
    ((*lines, last),) = attempts = read(tmp_path / "goodput.jsonl")
    assert sum(line.step == 2 and not line.saves for line in lines) >= 2  # no switch wrote these
    assert (last.first, last.step, last.saves, last.ended) == (0, 2, 1, True)
    assert last.seconds["data"] == pytest.approx(first + waited, abs=1e-3)
    assert last.seconds["step"] > busy
    assert last.seconds["compile"] > 0.003
    assert sum(totals(attempts).values()) == pytest.approx(last.time - last.began, abs=1e-3)
    assert not (tmp_path / "goodput.png").exists()


def test_another_process_than_the_first_writes_nothing(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(jax, "process_index", lambda: 1)
        clock = RunClock(tmp_path / "goodput.jsonl")
    with clock:
        for phase in ("data", "step", "save", "data", "end"):
            clock.switch(phase, 1)
    assert not list(tmp_path.iterdir())


def test_the_end_of_a_longer_run_is_told_and_drawn(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(goodput, "WORTH_TELLING", 0.1)
    with RunClock(tmp_path / "goodput.jsonl", process_start()):
        pass
    printed = capsys.readouterr().err
    assert re.search(r"goodput 0.0% of .* in 1 attempt: start .*\nthe plot", printed)
    assert (tmp_path / "goodput.png").read_bytes().startswith(b"\x89PNG")


def appeared(file, step, seconds=300):
    """Wait until a step is in the metrics, and return the time."""
    until = time.time() + seconds
    while not (file.exists() and f'"step": {step},' in file.read_text()):
        assert time.time() < until
        time.sleep(0.01)
    return time.time()


@pytest.mark.slow
def test_the_ledger_of_a_run_killed_twice_is_right_to_a_hundredth(tmp_path):
    """Compare with a clock outside: starts, kills, pauses, and lines of metrics as they appear."""
    command = ("scripts/train.py", "--config=configs/tiny.py", f"--workdir={tmp_path}")
    options = ["max_tokens=150_000", "save_every=20", "eval_every=0", "log_every=1"]
    command += tuple(f"--config.{option}" for option in options)
    metrics = tmp_path / "metrics.jsonl"
    began, ended, lost = [], [], 0.0
    for saved in (20, 40):
        began.append(time.time())
        process = start(*command)
        try:
            since = appeared(metrics, saved)
            appeared(metrics, saved + 18)
        finally:
            process.kill()
            process.communicate()
        ended.append(time.time())
        lost += ended[-1] - since
        time.sleep(3)
    began.append(time.time())
    process = start(*command)
    for line in process.stdout:
        if "the plot is" in line:
            ended.append(time.time())
        if line.startswith(("goodput", "least")):
            print(line, end="")
    process.communicate()
    assert process.returncode == 0
    attempts = read(tmp_path / "goodput.jsonl")
    seconds = totals(attempts)
    print({name: round(x, 2) for name, x in seconds.items()}, "clock", ended[-1] - began[0])
    hundredth = (ended[-1] - began[0]) / 100
    assert [x[-1].first for x in attempts] == [0, 20, 40]
    assert sum(seconds.values()) == pytest.approx(ended[-1] - began[0], abs=hundredth)
    between = began[1] - ended[0] + began[2] - ended[1]
    assert seconds["down"] == pytest.approx(between, abs=hundredth)
    for entries, first, last in zip(attempts, began, ended, strict=True):
        assert entries[0].began == pytest.approx(first, abs=hundredth)
        assert entries[-1].time == pytest.approx(last, abs=hundredth)
    # Outside, the saves of steps 20 and 40 and what they compile look like lost time too.
    inside = sum(
        next(x for x in entries if x.step > saved).seconds[name]
        - next(x for x in entries if x.step == saved).seconds[name]
        for entries, saved in zip(attempts, (20, 40), strict=False)
        for name in ("save", "compile")
    )
    assert seconds["lost"] == pytest.approx(lost - inside, abs=2 * hundredth)
    assert hundredth > clocks.LEAST_SECONDS
