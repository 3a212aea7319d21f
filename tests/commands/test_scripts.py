# SPDX-License-Identifier: Apache-2.0
"""Commands as a user runs them: what is wrong is told in one line, and nothing is left behind."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.train_rows_per_stp=4"], "nearest is config.train_rows_per_step"),
        (["--config.data.train=/nowhere"], "/nowhere/train do not exist"),
        pytest.param(
            ["--config.max_tokens=abc"],
            "config.max_tokens is abc; it must be a whole number",
            marks=pytest.mark.slow,
        ),
        pytest.param(["--config", "nowhere.py"], "nowhere.py", marks=pytest.mark.slow),
    ],
)
def test_train_refuses_in_one_line(arguments, message, tmp_path):
    workdir = tmp_path / "run"
    command = [sys.executable, ROOT / "scripts" / "train.py", "--workdir", workdir]
    config = [] if "--config" in arguments else ["--config", ROOT / "configs" / "tiny.py"]
    run = subprocess.run([*command, *config, *arguments], capture_output=True, text=True)
    assert run.returncode == 2
    *log, error = run.stderr.splitlines()
    assert error.startswith("error: ")
    assert all(line.startswith("precision ") for line in log)  # the run's log, no traceback
    assert message in run.stderr
    assert not workdir.exists()
