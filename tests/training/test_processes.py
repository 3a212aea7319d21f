# SPDX-License-Identifier: Apache-2.0
"""Several real processes of one run: rows on every mesh, lost peers, signals."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import pytest

from bcmb_jax.data.synthetic import prepare_synthetic
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


def run(workdir, *others, given=((), ()), variables=({}, {}), program=("scripts/train.py",)):
    """Start the same run in two processes, with arguments and variables of their own."""
    port = free_port()
    return [
        start(
            *program,
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
OLD = """
from importlib import metadata
version = metadata.version
metadata.version = lambda name: "0.0.1" if name == "optax" else version(name)
"""
TIMED = """
import os, sys, time
from bcmb_jax import commands
from bcmb_jax.commands import train  # the imports
from bcmb_jax.errors import run
begun, end = time.monotonic(), os._exit
def told(status):
    print(f"ended after {time.monotonic() - begun:.2f} s", flush=True)
    end(status)
os._exit = told
told(run(lambda: commands.main("train", *sys.argv[1:])))
"""
TIMED = ("-P", "-c", TIMED)  # -P: the package is where PYTHONPATH says


def refused(ended, status, message):
    """Check that a process ended with one line, ten seconds after its imports at the latest."""
    assert ended[0] == status, ended[1]
    assert re.search(f"^error: .*{message}", ended[1], re.MULTILINE), ended[1]
    assert "Traceback" not in ended[1]
    assert float(re.search(r"ended after (.*) s", ended[1])[1]) < 10


@pytest.mark.slow
@pytest.mark.parametrize(
    ("given", "variables", "message"),
    [
        (((), ("--config.seed=3",)), ({}, {}), "configuration than process 0 .*: seed is 3 there"),
        (((), ("--config.data.train=('OTHER',)",)), ({}, {}), "another data than process 0"),
        (((), ("--workdir=/proc/nowhere",)), ({}, {}), "process 1 .*/proc/nowhere is not shared"),
        ((("--workdir=/proc/nowhere",), ()), ({}, {}), "/proc/nowhere cannot be written"),
        (((), ("--workdir=OTHER",)), ({}, {}), "process 1 .*OTHER is not shared with process 0"),
        (((), ()), ({}, {"JAX_NUM_CPU_DEVICES": "2"}), "number of devices .*: count is 2 there"),
        (((), ()), ({}, {"PYTHONPATH": "late"}), "the clocks of .* differ by 300 s"),
        (((), ()), ({}, {"PYTHONPATH": "old"}), "another version than .*: optax is 0.0.1 there"),
        (((), ()), ({}, {"PYTHONPATH": "code"}), "another version than .*: code is .* there"),
    ],
)
def test_processes_that_differ_are_refused_by_name(tmp_path, given, variables, message):
    for name, text in {"late": LATE, "old": OLD}.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "sitecustomize.py").write_text(text)
    if "code" in variables[1].values():
        shutil.copytree(ROOT / "bcmb_jax", tmp_path / "code" / "bcmb_jax")
        with (tmp_path / "code" / "bcmb_jax" / "batch.py").open("a") as file:
            file.write("# another line\n")
    if "data" in message:
        notes = prepare_synthetic(tmp_path / "notes", vocab_size=2048, notes=200)
        prepare_synthetic(tmp_path / "OTHER", vocab_size=2048, notes=201)
        given = (f"--config.data.train=('{notes}',)",), ("--config.data.train=('OTHER/shards',)",)
    given = [[x.replace("OTHER", str(tmp_path / "OTHER")) for x in own] for own in given]
    variables = [
        {k: f"{tmp_path / v}:{ROOT}" if k == "PYTHONPATH" else v for k, v in own.items()}
        for own in variables
    ]
    started = run(tmp_path / "run", given=given, variables=variables, program=TIMED)
    for ended in finish(started, 300):
        refused(ended, 2, message)


TWO_HOSTS = {
    "SLURM_STEP_NUM_TASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_STEP_NODELIST": "a[1-2]",
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("coordinator", "process", "variables", "status", "message"),
    [
        ("localhost:FREE", 0, {}, 69, r"processes \[1\] of 2 did not come to localhost:\d+ in 8 s"),
        ("localhost:FREE", 1, {}, 69, "nobody answers at the coordinator localhost:"),
        ("192.0.2.1:4711", 1, {}, 69, "nobody answers at the coordinator 192.0.2.1:4711"),
        ("[fe80::nowhere]:1", 1, {}, 2, r"unknown host \[fe80::nowhere\]"),
        ("localhost:USED", 0, {}, 2, r"process 0 cannot listen at port \d+"),
        ("localhost:FREE", None, TWO_HOSTS, 2, r"localhost:\d+ is a loopback address"),
    ],
)
def test_processes_that_do_not_meet_are_told_why(
    tmp_path, coordinator, process, variables, status, message
):
    with socket.create_server(("", 0)) as server:
        coordinator = coordinator.replace("USED", str(server.getsockname()[1]))
        arguments = ["--config=configs/tiny.py", f"--workdir={tmp_path / 'run'}", *SMALL]
        if process is not None:
            arguments += ["--processes=2", f"--process={process}"]
        coordinator = f"--coordinator={coordinator.replace('FREE', str(free_port()))}"
        (ended,) = finish([start(*TIMED, *arguments, coordinator, **variables)])
    refused(ended, status, message)


@pytest.mark.slow
def test_too_little_disk_is_told_by_all_processes(tmp_path):
    huge = "--config.model.hidden_size=131072"
    for ended in finish(run(tmp_path / "run", huge, program=TIMED), 300):
        refused(ended, 74, "run has .* MB free, a checkpoint takes .* MB")


def wait_for(file, words, seconds=300):
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


DISTURBED = """
import os, pathlib, signal, sys, time
from bcmb_jax import commands, files
from bcmb_jax.data.loader import Steps
from bcmb_jax.errors import run
from bcmb_jax.training import checkpoint

disturbed = f"--process={number}" in sys.argv
read, restore, folder = Steps.__getitem__, checkpoint._restore, pathlib.Path("{folder}")
files.WAITS = (0.0, 0.0)

def held(self, step):
    while disturbed and (folder / "hold").exists():
        time.sleep(0.1)
    return read(self, step)

def unreadable(*arguments):
    if disturbed and (folder / "unreadable").exists():
        raise PermissionError("Permission denied")
    return restore(*arguments)

Steps.__getitem__, checkpoint._restore = held, unreadable
sys.exit(run(lambda: commands.main("train", *sys.argv[1:])))
"""


def disturbed(folder, number):
    """Return a program that trains, but process `number` waits or cannot read if told to."""
    return "-c", DISTURBED.replace("{folder}", str(folder)).replace("{number}", str(number))


@pytest.mark.slow
@pytest.mark.parametrize("number", [0, 1])
def test_a_process_held_outside_the_collective_ends_all_within_a_minute(tmp_path, number):
    workdir = tmp_path / "run"
    endless = "--config.max_tokens=100_000_000"
    started = run(workdir, endless, program=disturbed(tmp_path, number))
    try:
        wait_for(workdir / "metrics.jsonl", '"step": 9')
        (tmp_path / "hold").touch()
        begun = time.monotonic()
    finally:
        ended = finish(started, 60)
    assert time.monotonic() - begun < 60
    for status, text in ended:
        assert status == 70
        why = [line for line in text.splitlines() if line.startswith("error: ")]
        assert len(why) == 1
        assert re.search("is alive, but for 45 s the others wait|takes more than 45 s", why[0])
    assert re.search(rf"^error: .*process(es)? \[?{number}\b", ended[1 - number][1], re.MULTILINE)
    assert "in held" in ended[number][1]  # its stack says where


@pytest.mark.slow
def test_two_processes_restore_the_same_checkpoint_or_none(tmp_path):
    workdir = tmp_path / "run"
    arguments = ("--config.max_tokens=5000", "--config.save_every=2")
    program = disturbed(tmp_path, 1)
    assert [x for x, _ in finish(run(workdir, *arguments, program=program), 300)] == [0, 0]
    before = sorted(int(x.name) for x in (workdir / "checkpoints").iterdir())
    (tmp_path / "unreadable").touch()
    for status, text in finish(run(workdir, *arguments, program=program), 300):
        assert status == 74
        assert re.search(r"^error: .*could not be read in 3 tries: Permission denied", text, re.M)
    (tmp_path / "unreadable").unlink()
    assert sorted(int(x.name) for x in (workdir / "checkpoints").iterdir()) == before
    for file in (workdir / "checkpoints" / str(before[-1]) / "state").rglob("d/*"):
        file.write_bytes(file.read_bytes()[:-9] + b"\xff" * 9)
    for status, text in finish(run(workdir, *arguments, program=program), 300):
        assert status == 0
        assert "trying the one before" in text
    assert [int(x.name) for x in (workdir / "checkpoints-damaged").iterdir()] == before[-1:]
    assert sorted(int(x.name) for x in (workdir / "checkpoints").iterdir()) == before


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
