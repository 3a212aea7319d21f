# SPDX-License-Identifier: Apache-2.0
"""Preparation that is killed, or finds the disk full: afterwards nothing is half there."""

import errno
import gzip
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.errors import InputError
from tests.data.test_prepare import ROOT, contents, make_tokenizer, run, words

NO_PROCESS = 2**22 + 1  # Linux has no greater number than 2**22
PREPARE = [sys.executable, str(ROOT / "scripts/prepare_data.py")]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}


def test_a_killed_run_starts_again_and_counts_nothing_twice(tmp_path: Path) -> None:
    program = """if True:
        import itertools, sys
        from pathlib import Path
        from tests.data.test_prepare import make_records, run
        records = itertools.chain(make_records(), (print(flush=True) or r for r in make_records()))
        run(Path(sys.argv[1]), itertools.chain(records, iter(input, None)))
    """
    output = tmp_path / "out"
    with subprocess.Popen(
        [sys.executable, "-c", program, str(output)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        process.send_signal(signal.SIGKILL)
    assert sorted(x.suffix for x in tmp_path.iterdir()) == [".lock", ".partial"]
    assert not output.exists()
    run(output)
    run(tmp_path / "fresh")
    assert contents(output) == contents(tmp_path / "fresh")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "out"]


def test_a_run_killed_between_old_and_new_gives_the_old_one_back(tmp_path: Path) -> None:
    run(tmp_path / "out")
    left = tmp_path / f".out.{socket.gethostname()}-{NO_PROCESS}.x.partial"
    left.mkdir()
    (tmp_path / "out").rename(left / "old")
    with pytest.raises(InputError, match="exists already"):
        run(tmp_path / "out")
    assert len(words(tmp_path / "out/train")) > 2000


def kill_and_rerun(folder: Path, arguments: list[str], kills: int) -> None:
    """Kills runs that replace an old output, at moments spread over their work."""
    whole, old, output = folder / "whole/out", folder / "old/out", folder / "killed/out"
    for path, seed in ((whole, "1"), (old, "2")):
        with start(arguments, path, seed) as process:
            wait_for_work(process, path)
            began = time.monotonic()
            assert process.wait() == 0
            duration = time.monotonic() - began
    before, after = contents(old), contents(whole)
    assert before != after
    for kill in range(kills):
        share = random.uniform(kill, kill + 1) / kills
        for _ in range(20):
            shutil.rmtree(output, ignore_errors=True)
            shutil.copytree(old, output)
            if killed(arguments, output, share * duration):
                break
            assert contents(output) == after
            share *= 0.8  # this run was faster than the one that told how long to wait
        else:
            pytest.fail("twenty runs ended before they could be killed")
        aside = output.parent.glob(".out.*.partial/old")
        assert contents(output if output.exists() else next(aside)) in (before, after)
        with start(arguments, output, "1") as process:
            assert process.wait() == 0
        assert contents(output) == after
        assert [path.name for path in output.parent.iterdir()] == ["out"]


def killed(arguments: list[str], output: Path, seconds: float) -> bool:
    """Whether a run that has written for `seconds` could still be killed."""
    with start(arguments, output, "1") as process:
        wait_for_work(process, output)
        time.sleep(seconds)
        in_time = process.poll() is None
        if in_time:
            os.killpg(process.pid, signal.SIGKILL)
    assert in_time or process.returncode == 0
    return in_time


def start(arguments: list[str], output: Path, seed: str) -> subprocess.Popen[bytes]:
    """A run in a process group of its own."""
    command = [*PREPARE, *arguments, "--output", str(output), "--seed", seed, "--overwrite"]
    return subprocess.Popen(command, env=ENVIRONMENT, start_new_session=True)


def wait_for_work(process: subprocess.Popen[bytes], output: Path) -> None:
    """Returns once the run has begun to write."""
    while not list(output.parent.glob(f".{output.name}.*.partial")):
        assert process.poll() is None, "ended before it wrote anything"
        time.sleep(0.002)


@pytest.mark.parametrize("kills", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_kills_at_random_moments_change_no_byte(tmp_path: Path, kills: int) -> None:
    make_tokenizer().save(tmp_path / "tokenizer")
    lines = (json.dumps({"text": f"w{i % 2000} " * (i % 90 + 1), "id": i}) for i in range(20_000))
    (tmp_path / "notes.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode(), 1))
    arguments = ["--source", "jsonl", "--input", str(tmp_path / "notes.jsonl.gz")]
    arguments += ["--tokenizer", str(tmp_path / "tokenizer"), "--workers", "2"]
    kill_and_rerun(tmp_path, [*arguments, "--exact-duplicates"], kills)


@pytest.mark.slow
def test_ten_kills_on_real_text_change_no_byte(shared: Path, tmp_path: Path) -> None:
    text = shared / "data/pretrain/pubmed/ei_abstracts.jsonl.gz"
    arguments = ["--source", "jsonl", "--input", str(text), "--text-column", "title,abstract"]
    arguments += ["--tokenizer", str(shared / "data/tokenizers/modernbert"), "--workers", "2"]
    kill_and_rerun(tmp_path, [*arguments, "--near-duplicates"], kills=10)


def full(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """From here on the disk is full as soon as `what` is written."""

    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if what == "spool":
        # A write to this device is refused when it reaches it, and again when it is closed.
        monkeypatch.setattr("tempfile.TemporaryFile", lambda dir: open("/dev/full", "w+b"))  # noqa: SIM115
    elif what == "lengths.npy":
        monkeypatch.setattr("numpy.save", refuse)
    elif what == "rename":
        rename = Path.rename
        monkeypatch.setattr(
            Path,
            "rename",
            lambda a, b: refuse() if (a.name, b.name) == ("new", "out") else rename(a, b),
        )
    else:
        opened = open
        monkeypatch.setattr(
            "builtins.open",
            lambda p, *a, **k: (
                refuse() if Path(str(p)).name == f"{what}.partial" else opened(p, *a, **k)
            ),
        )


@pytest.mark.parametrize("what", ["spool", "lengths.npy", "index.json", "report.json", "rename"])
@pytest.mark.parametrize("before", [True, False])
def test_a_full_disk_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, before: bool
) -> None:
    if before:
        run(tmp_path / "out")
    found = contents(tmp_path)
    full(monkeypatch, what)
    message = r"disk full: the [\d,.]+ MB free in .* too little for out \(there were [\d,]+ tokens"
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", seed=4, overwrite=True)
    assert contents(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if before else [])


def test_other_errors_of_the_disk_stay_what_they_are(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises((NotADirectoryError, FileExistsError)):
        run(tmp_path / "file/out")


IN_A_SMALL_DISK = """
mount -t tmpfs -o size="$1"k none disk || exit 77
shift
listing() { (cd disk && find . | sort && find . -type f -exec sha256sum {} + | sort); }
"$@" --input few.csv --seed 1 && listing > before
"$@" --input many.csv --overwrite; echo $? > status
listing > after
"""


@pytest.mark.parametrize(
    "kilobytes", [450, *(pytest.param(x, marks=pytest.mark.slow) for x in (200, 650))]
)
def test_a_really_full_disk(tmp_path: Path, kilobytes: int) -> None:
    """In a file system of its own: too little to read all in, to write it, to write it twice."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    make_tokenizer().save(tmp_path / "tokenizer")
    for name, count in (("few.csv", 500), ("many.csv", 8000)):
        rows = "".join(f"{'w7 ' * 20}w{i % 2000}\n" for i in range(count))
        (tmp_path / name).write_text("text\n" + rows)
    (tmp_path / "disk").mkdir()
    command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", IN_A_SMALL_DISK, "sh"]
    command += [str(kilobytes), *PREPARE, "--source", "csv", "--tokenizer", "tokenizer"]
    done = subprocess.run(
        [*command, "--output", "disk/out"],
        cwd=tmp_path,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
    )
    if done.returncode in (1, 77) and not (tmp_path / "before").exists():
        pytest.skip(f"no file system of its own: {done.stderr}")
    assert (tmp_path / "status").read_text() == "2\n", done.stderr
    lines = [line for line in done.stderr.splitlines() if "%  tokenizing: " not in line]
    errors = [line for line in lines if not line.startswith("next: ")]  # of the first command
    assert len(errors) == 1, "and what was shown of the progress"
    assert errors[0].startswith("error: disk full: the 0.")
    assert "./out/report.json" in (tmp_path / "before").read_text()
    assert (tmp_path / "after").read_text() == (tmp_path / "before").read_text()
