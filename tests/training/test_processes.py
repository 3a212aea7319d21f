# SPDX-License-Identifier: Apache-2.0
"""Several real processes of one run: rows on every mesh, lost peers, signals."""

import os
import re
import signal
import subprocess
import sys
import time

import pytest

from bcmb_jax.training import goodput
from tests.fixtures.processes import ROOT, finish, free_port, start


@pytest.mark.parametrize(
    ("processes", "devices", "meshes"),
    [
        (2, 2, 6),
        pytest.param(2, 1, 3, marks=pytest.mark.slow),
        pytest.param(4, 1, 6, marks=pytest.mark.slow),
        pytest.param(4, 2, 10, marks=pytest.mark.slow),
    ],
)
def test_every_mesh_holds_the_rows_of_one_process(processes, devices, meshes):
    script, port = ROOT / "tests" / "fixtures" / "rows_on_meshes.py", free_port()
    ended = finish([start(script, port, processes, i, devices) for i in range(processes)])
    for status, text in ended:
        assert f"{meshes} meshes of {processes * devices} devices, 0 wrong" in text
        assert status == 0


def run(workdir, *others, given=((), ()), variables=({}, {})):
    """Start the same run in two processes, with arguments and variables of their own."""
    port = free_port()
    return [
        start(
            "scripts/train.py",
            "--config=configs/tiny.py",
            f"--workdir={workdir}",
            f"--coordinator=localhost:{port}",
            "--processes=2",
            f"--process={i}",
            "--wait=60",
            *SMALL,
            *others,
            *given[i],
            **variables[i],
        )
        for i in range(2)
    ]


SMALL = (
    "--config.data.row_length=128",
    "--config.data.max_document_length=128",
    "--config.train_rows_per_step=8",
    "--config.model.hidden_size=32",
    "--config.model.num_hidden_layers=1",
    "--config.model.intermediate_size=48",
    "--config.eval_tokens=2000",
    "--config.eval_every=0",
    "--config.log_every=1",
)
LATE = "import time; now = time.time; time.time = lambda: now() + 300\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "variables", "message"),
    [
        (((), ("--config.seed=3",)), ({}, {}), "configuration than process 0 .*: seed is 3 there"),
        (((), ("--workdir=/proc/nowhere",)), ({}, {}), "process 1 .*/proc/nowhere is not shared"),
        ((("--workdir=/proc/nowhere",), ()), ({}, {}), "/proc/nowhere cannot be written"),
        (((), ("--workdir=OTHER",)), ({}, {}), "process 1 .*OTHER is not shared with process 0"),
        (((), ()), ({}, {"JAX_NUM_CPU_DEVICES": "2"}), "number of devices .*: count is 2 there"),
        (((), ()), ({}, {"PYTHONPATH": "LATE"}), "the clocks of .* differ by 300 s"),
    ],
)
def test_processes_that_differ_are_refused_by_name(tmp_path, given, variables, message):
    (tmp_path / "sitecustomize.py").write_text(LATE)
    given = [[x.replace("OTHER", str(tmp_path / "OTHER")) for x in own] for own in given]
    path = {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    variables = [path if own.get("PYTHONPATH") else own for own in variables]
    for status, text in finish(run(tmp_path / "run", given=given, variables=variables)):
        assert status == 2
        assert re.search(message, text), text


def wait_for(file, words, seconds=120):
    until = time.monotonic() + seconds
    while not (file.exists() and words in file.read_text()):
        assert time.monotonic() < until
        time.sleep(0.1)


@pytest.mark.slow
@pytest.mark.parametrize("told", [0, 1])
def test_a_signal_to_one_process_stops_all_at_the_same_step(tmp_path, told):
    started = run(tmp_path, "--config.max_tokens=100_000_000")
    wait_for(tmp_path / "metrics.jsonl", '"step": 3')
    started[told].send_signal(signal.SIGUSR1)
    started[told].send_signal(signal.SIGTERM)
    ended = finish(started)
    assert [status for status, _ in ended] == [75, 75]
    assert "stopping after this step" in ended[told][1]
    (step,) = [x.name for x in (tmp_path / "checkpoints").iterdir()]
    assert f"saved at step {step}; the same command resumes" in ended[0][1]
    (lines,) = goodput.read(tmp_path / "goodput.jsonl")  # one process alone writes it
    assert lines[-1].ended
    assert [x.name for x in tmp_path.rglob("goodput*.jsonl")] == ["goodput.jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "how"),
    [(0, signal.SIGKILL), (1, signal.SIGKILL), (0, signal.SIGSTOP), (1, signal.SIGSTOP)],
)
def test_a_lost_process_ends_training_within_a_minute(tmp_path, number, how):
    started = run(tmp_path, "--config.max_tokens=100_000_000")
    wait_for(tmp_path / "metrics.jsonl", '"step": 3')
    started[number].send_signal(how)
    begun = time.monotonic()
    try:
        ((status, text),) = finish([started[1 - number]], 60)
    finally:
        started[number].kill()
        started[number].communicate()
    assert time.monotonic() - begun < 60
    assert status == 69
    assert re.search(f"error: process {number} on .* is (gone|silent)", text)
    assert "Traceback" not in text


SRUN = """#!/bin/bash
shift
for i in 0 1; do
  SLURM_STEP_NUM_TASKS=2 SLURM_PROCID=$i SLURM_LOCALID=$i SLURM_STEP_NODELIST=localhost \\
    SLURM_STEP_NUM_NODES=1 SLURM_STEP_TASKS_PER_NODE=2 "$@" &
done
wait -n; first=$?; wait -n; second=$?
exit $((first > second ? first : second))
"""


def batch(folder, *arguments, **variables):
    """Run the batch script with an `srun` that starts two processes here."""
    for name, text in {"srun": SRUN, "scontrol": '#!/bin/bash\necho "scontrol $@"\n'}.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    variables = {"SLURM_JOB_ID": str(free_port()), "PYTHON": sys.executable} | variables
    environment = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | variables
    done = subprocess.run(
        ["bash", "scripts/slurm/train.sbatch", *arguments],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow
def test_the_batch_script_trains_under_slurm(tmp_path):
    given = ("--config=configs/tiny.py", f"--workdir={tmp_path / 'run'}", *SMALL)
    status, text = batch(tmp_path, *given, "--config.max_tokens=4000")
    assert status == 0, text
    assert "scontrol" not in text
    assert (tmp_path / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize(
    ("ends", "again"), [(0, False), (75, True), (69, True), (137, True), (2, False), (70, False)]
)
def test_the_batch_script_starts_again_what_may_go_on(tmp_path, ends, again):
    program = tmp_path / "program"
    program.write_text(f"#!/bin/bash\nexit {ends}\n")
    program.chmod(0o755)
    status, text = batch(tmp_path, PYTHON=str(program), SLURM_JOB_ID="4711")
    assert status == ends
    assert ("scontrol requeue 4711" in text) == again
    assert "requeue" not in batch(tmp_path, PYTHON=str(program), SLURM_RESTART_COUNT="100")[1]
