# SPDX-License-Identifier: Apache-2.0
"""Two of one: a folder is written by one process at a time, and a dead one blocks nobody."""

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bcmb_jax.files import new_directory
from bcmb_jax.locks import STALE, HeldError, locked

ROOT = Path(__file__).parents[1]

HOLD = """
import sys, time
from pathlib import Path
from bcmb_jax.locks import locked
with locked(Path(sys.argv[1]), Path("folder")):
    print("held", flush=True)
    time.sleep(60)
"""

COUNT = """
import sys, time
from pathlib import Path
from bcmb_jax.locks import locked
file = Path(sys.argv[1])
for _ in range(20):
    with locked(file.with_name("lock"), file, wait=True):
        number = int(file.read_text())
        time.sleep(0.002)
        file.write_text(str(number + 1))
"""


def start(program: str, *arguments: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def test_a_second_process_is_refused_and_a_killed_one_blocks_nobody(tmp_path):
    lock = tmp_path / "lock"
    with start(HOLD, lock) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        told = f"is being written by process {holder.pid} on"
        with pytest.raises(HeldError, match=told), locked(lock, tmp_path):
            pass
        holder.send_signal(signal.SIGKILL)
    with locked(lock, tmp_path):
        assert json.loads(lock.read_text())["process"] == os.getpid()
    assert not lock.exists()


def test_a_holder_that_has_yet_to_write_who_it_is_is_named(tmp_path):
    lock = tmp_path / "lock"
    with lock.open("a+") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        holder = {"process": 7, "host": "here", "since": "now"}
        threading.Timer(0.2, lambda: lock.write_text(json.dumps(holder))).start()
        told = "is being written by process 7 on here since now"
        with pytest.raises(HeldError, match=told), locked(lock, tmp_path):
            pass


def test_a_lock_of_another_host_holds_until_it_is_stale(tmp_path):
    lock = tmp_path / "lock"
    lock.write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026-01-01"}))
    told = "process 1 on elsewhere since 2026-01-01"
    with pytest.raises(HeldError, match=told), locked(lock, tmp_path):
        pass
    long_ago = time.time() - STALE - 1
    os.utime(lock, (long_ago, long_ago))
    with locked(lock, tmp_path):
        pass
    assert not lock.exists()


@pytest.mark.parametrize("content", ["", "{", "[]", "\x00" * 2000])
def test_a_damaged_lock_file_blocks_nobody(tmp_path, content):
    (tmp_path / "lock").write_text(content)
    with locked(tmp_path / "lock", tmp_path):
        pass


def test_processes_that_wait_take_turns(tmp_path):
    (tmp_path / "number").write_text("0")
    processes = [start(COUNT, tmp_path / "number") for _ in range(4)]
    for process in processes:
        process.communicate()
    assert [process.returncode for process in processes] == [0] * 4
    assert (tmp_path / "number").read_text() == "80"
    assert [x.name for x in tmp_path.iterdir()] == ["number"]


def test_a_folder_in_the_making_refuses_another_maker(tmp_path):
    with new_directory(tmp_path / "model") as new:
        (new / "weights").touch()
        told = "wait until it ends, or give another folder"
        with pytest.raises(HeldError, match=told), new_directory(tmp_path / "model"):
            pass
    assert [x.name for x in tmp_path.iterdir()] == ["model"]
    assert [x.name for x in (tmp_path / "model").iterdir()] == ["weights"]


@pytest.mark.parametrize("tries", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_two_preparations_of_one_output(tmp_path, tries, tiny_tokenizer):
    notes = tmp_path / "notes.csv"
    rows = "".join(f"{i},the left lung is clear {'again ' * (i % 9)}\n" for i in range(300))
    notes.write_text("patient,text\n" + rows)
    for number in range(tries):
        output = tmp_path / f"shards{number}"
        command = [sys.executable, "scripts/prepare_data.py", "--source", "csv"]
        command += ["--input", str(notes), "--text-column", "text", "--group-column", "patient"]
        command += ["--tokenizer", str(tiny_tokenizer), "--output", str(output), "--workers", "1"]
        both = [
            subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)
        ]
        errors = [process.communicate()[1] for process in both]
        statuses = sorted(process.returncode for process in both)
        assert statuses == [0, 2], errors
        refused = errors[[process.returncode for process in both].index(2)]
        assert "is being written by process" in refused or "exists already" in refused
        report = json.loads((output / "report.json").read_text())
        assert report["splits"]["train"]["documents"] > 200
        assert not list(tmp_path.glob(".shards*"))
