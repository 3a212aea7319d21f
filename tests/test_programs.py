# SPDX-License-Identifier: Apache-2.0
"""Compiled programs are kept where only their user can write, and none that is damaged is run."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bcmb_jax import programs
from bcmb_jax.programs import Programs

ROOT = Path(__file__).parents[1]
STARTS = """
import json, logging, sys
from pathlib import Path
import jax
import jax.numpy as jnp
from bcmb_jax.programs import keep_programs

logging.basicConfig(format="%(message)s", stream=sys.stderr)
folder = Path(sys.argv[1], "bcmb_jax", "compiled")
events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event))
keep_programs()

def start():
    events.clear()
    jax.clear_caches()  # as a new process would
    assert jax.jit(lambda x: x * 2 + 1)(jnp.ones(8)).sum() == 24
    return sum(event.endswith("/cache_hits") for event in events)

found = [start(), start()]
kept = sorted(file for file in folder.rglob("*") if file.is_file())
for file in kept:
    file.write_bytes(file.read_bytes()[:-1] + b"x")
found += [start(), start()]
modes = sorted({oct(x.stat().st_mode & 0o777) for x in folder.parent.rglob("*")})
print(json.dumps({"found": found, "kept": len(kept), "modes": modes}))
"""


def start(caches: Path, **variables: str) -> tuple[dict, list[str]]:
    """Run the program above in a process of its own; return what it printed and its warnings."""
    environment = os.environ | {"XDG_CACHE_HOME": str(caches), "PYTHONPATH": str(ROOT)} | variables
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    if "JAX_COMPILATION_CACHE_DIR" not in variables:
        del environment["JAX_COMPILATION_CACHE_DIR"]  # of the tests
    command = [sys.executable, "-c", STARTS, str(caches)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr.splitlines()


def test_a_later_start_finds_its_programs_and_damaged_ones_are_made_anew(tmp_path) -> None:
    result, warnings = start(tmp_path / "caches")
    kept = result["kept"]
    assert kept > 0
    assert result["found"] == [0, kept, 0, kept]
    assert len(warnings) == kept
    assert all("was damaged: it is removed" in line for line in warnings)
    assert result["modes"] == ["0o600", "0o700"]


def test_where_others_may_write_nothing_is_kept_and_one_line_says_so(tmp_path) -> None:
    (tmp_path / "bcmb_jax").mkdir()
    (tmp_path / "bcmb_jax").chmod(0o770)
    result, warnings = start(tmp_path)
    assert (result["found"], result["kept"]) == ([0, 0, 0, 0], 0)
    (line,) = warnings
    assert f"chmod 700 {tmp_path / 'bcmb_jax'}" in line


@pytest.mark.slow
def test_a_folder_that_the_user_names_is_left_to_jax(tmp_path) -> None:
    start(tmp_path, JAX_COMPILATION_CACHE_DIR=str(tmp_path / "named"))
    assert not (tmp_path / "bcmb_jax").exists()
    assert any((tmp_path / "named").iterdir())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda file: file.write_bytes(b""),
        lambda file: file.write_bytes(file.read_bytes()[:-1]),
        lambda file: file.rename(file.with_name("key")) and file.with_name("key"),
        lambda file: file.write_bytes(b"program"),
    ],
)
def test_a_damaged_program_is_removed(spoil, tmp_path) -> None:
    folder = tmp_path / "jax"
    folder.mkdir()
    cache = Programs(folder)
    cache.put("other", b"program")
    assert cache.get("other") == b"program"
    spoil(folder / "other")
    assert (cache.get("key"), cache.get("other")) == (None, None)
    assert not any(folder.iterdir())


def test_links_to_folders_of_others_are_refused(tmp_path, monkeypatch) -> None:
    (tmp_path / "theirs").mkdir(0o700)
    (tmp_path / "bcmb_jax").symlink_to(tmp_path / "theirs")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(PermissionError, match="not a folder of yours"):
        programs.own_folder()


def test_the_programs_used_last_stay(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(programs, "MOST_BYTES", 3 * (32 + 100))
    caches = [Programs(tmp_path / name) for name in ("old", "new")]
    for cache in caches:
        cache._path.mkdir()
    for number, cache in enumerate([caches[0], *caches, caches[1]]):
        cache.put(str(number), bytes(100))
        os.utime(cache._path / str(number), (number, number))
        assert caches[0].get("0")  # used again each time
    left = sorted(file.name for file in tmp_path.rglob("*") if file.is_file())
    assert left == ["0", "2", "3"]


def test_a_full_disk_stops_no_run(tmp_path, caplog) -> None:
    Programs(tmp_path / "gone").put("key", b"program")
    assert [line.getMessage().split(":")[0] for line in caplog.records] == [
        "a compiled program is not kept"
    ]
