# SPDX-License-Identifier: Apache-2.0
"""Files that claim to be large, or never end, are refused in seconds and within a gigabyte."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.bombs import BOMBS, SHORT
from tests.fixtures.measured import Measured, measure_here

ROOT = Path(__file__).parents[1]
MOST_SECONDS, MOST_MEGABYTES = 5, 1000
REFUSED = {"InputError", "DamagedCheckpoint"}
LEFT_OUT = {"jsonl lists": "SkippedRecord"}
"""Where one record is left out and counted, and reading goes on."""


def measured(module: str, folder: Path) -> dict[str, Measured]:
    command = [sys.executable, "-m", f"tests.{module}", str(folder)]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return {name: Measured(*x) for name, x in json.loads(done.stdout).items()}


def check(found: dict[str, Measured]) -> None:
    wrong = {
        name: x
        for name, x in found.items()
        if x.kind not in REFUSED | {LEFT_OUT.get(name)}
        or x.seconds > MOST_SECONDS
        or x.megabytes > MOST_MEGABYTES
        or "\n" in x.message
    }
    assert not wrong


@pytest.mark.parametrize("name", SHORT)
def test_what_a_small_file_claims_is_not_believed(name, tmp_path) -> None:
    make, read = BOMBS[name]
    make(tmp_path)
    check({name: measure_here(read, tmp_path)})


@pytest.mark.slow
@pytest.mark.torch
@pytest.mark.parametrize("module", ["fixtures.bombs", "parity.pickle_bombs"])
def test_every_bomb(module, tmp_path) -> None:
    """Print what each took: the table in docs/bombs.md."""
    if module == "parity.pickle_bombs":
        pytest.importorskip("torch", reason="needs the extra [torch]")
    found = measured(module, tmp_path)
    for name, x in found.items():
        print(f"| {name} | {x.seconds:.2f} | {x.megabytes:.0f} |")
    check(found)
