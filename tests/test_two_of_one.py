# SPDX-License-Identifier: Apache-2.0
"""Two commands started at one moment on one output: the one that ends well is as if it were alone.

Slow: `TRIES=20 pytest -m slow tests/test_two_of_one.py`. Preparations are in `test_locks.py`.
"""

import os
import signal
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from bcmb_jax.data.synthetic import prepare_synthetic
from tests.fixtures.processes import finish, start
from tests.fixtures.runs import final_state, lines

pytestmark = pytest.mark.slow

TRIES = int(os.environ.get("TRIES", 20))

TRAIN = """
import sys
from pathlib import Path
from bcmb_jax.errors import run
from tests.fixtures.runs import tiny_run, train
sys.exit(run(lambda: train(tiny_run(Path(sys.argv[1])), Path(sys.argv[2]))))
"""


def two_of(*command: object) -> None:
    """Run a command twice at once; one ends well, and the other names the one that was first."""
    processes = [start(*command) for _ in range(2)]
    ended = finish(processes, seconds=300)
    statuses = [status for status, _ in ended]
    assert sorted(statuses) == [0, 2], ended
    refused = ended[statuses.index(2)][1]
    (told,) = [line for line in refused.splitlines() if line.startswith("error: ")]
    first = processes[statuses.index(0)].pid
    assert f"is being written by process {first} on" in told or "exists" in told


def contents(folder: Path) -> dict[str, bytes]:
    return {
        file.relative_to(folder).as_posix(): file.read_bytes()
        for file in folder.rglob("*")
        if file.is_file()
    }


def test_two_conversions_of_one_output(folder, tmp_path) -> None:
    convert = ["-m", "conversion.convert", "--to", "huggingface", "--input", folder, "--output"]
    ((status, told),) = finish([start(*convert, tmp_path / "alone" / "model")])
    assert status == 0, told
    alone = contents(tmp_path / "alone" / "model")
    for number in range(TRIES):
        output = tmp_path / str(number) / "model"
        two_of(*convert, output)
        assert contents(output) == alone
        assert [x.name for x in output.parent.iterdir()] == ["model"]


def test_what_a_killed_conversion_left_is_cleared_by_the_next(folder, tmp_path) -> None:
    output = tmp_path / "out" / "model"
    convert = ["-m", "conversion.convert", "--to", "orbax", "--input", folder, "--output", output]
    for _ in range(3):
        process = start(*convert)
        while not list(tmp_path.glob("out/.model.*.partial/new/*")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        finish([process])
        assert not output.exists()
        assert len(list(output.parent.glob(".model.*.partial"))) == 1
    ((status, told),) = finish([start(*convert)])
    assert status == 0, told
    assert [x.name for x in output.parent.iterdir()] == ["model"]


def test_two_trainings_on_one_workdir(tmp_path) -> None:
    shards = prepare_synthetic(tmp_path / "shards", vocab_size=512, notes=150)
    ((status, told),) = finish([start("-c", TRAIN, shards, tmp_path / "alone")])
    assert status == 0, told
    for number in range(TRIES):
        workdir = tmp_path / str(number)
        two_of("-c", TRAIN, shards, workdir)
        found, right = final_state(workdir)[0], final_state(tmp_path / "alone")[0]
        jax.tree.map(np.testing.assert_array_equal, found, right)
        assert lines(workdir) == lines(tmp_path / "alone")
        assert not (workdir / ".lock").exists()
