# SPDX-License-Identifier: Apache-2.0
"""A disk that fails while a run is training: one line, status 74, and the same end once mended."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from bcmb_jax.errors import DONE, StorageError
from tests.fixtures.runs import final_state, tiny_run, train

ROOT = Path(__file__).parents[2]

RUN = """
import logging, sys
from pathlib import Path
import jax
logging.getLogger("absl").setLevel(logging.CRITICAL)  # as the command does
jax.config.update("jax_num_cpu_devices", 8)
from bcmb_jax.errors import run
from tests.fixtures.runs import tiny_run, train
config = tiny_run(Path(sys.argv[1]))
config.save_every = 2
sys.exit(run(lambda: train(config, Path(sys.argv[2]))))
"""

# Mount, break after the run has started to write, run, mend, run again, and copy the result out.
IN_A_SMALL_DISK = """
mount -t tmpfs -o size=$1 tmpfs disk || exit 77
"$2" -c "$3" "$4" disk/run 2> first; echo $? > status
mount -o remount,size=100m disk
"$2" -c "$3" "$4" disk/run 2> second; echo $? >> status
cp -r disk/run result
"""


IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


@pytest.mark.slow
@pytest.mark.parametrize("size", ["900k", "1500k"])
def test_a_full_disk_ends_the_run_in_a_line_and_mended_it_ends_equal(shards, tmp_path, size):
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    (tmp_path / "disk").mkdir()
    done = subprocess.run(
        [*IN_A_NAMESPACE, IN_A_SMALL_DISK, "sh", size, sys.executable, RUN, str(shards)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if not (tmp_path / "status").exists():
        pytest.skip(f"no file system of its own: {done.stderr}")
    told = (tmp_path / "first").read_text()
    assert (tmp_path / "status").read_text() == "74\n0\n", told + (tmp_path / "second").read_text()
    errors = [line for line in told.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "No space left on device" in errors[0]
    config = tiny_run(shards)
    config.save_every = 2
    assert train(config, tmp_path / "undisturbed") == DONE
    found, right = final_state(tmp_path / "result")[0], final_state(tmp_path / "undisturbed")[0]
    jax.tree.map(np.testing.assert_array_equal, found, right)


@pytest.mark.parametrize(
    "error",
    [
        OSError(30, "Read-only file system"),
        ValueError("INTERNAL: Error writing 'x' [Input/output error]"),
        OSError(116, "Stale file handle", "/mnt/run/metrics.jsonl"),
    ],
)
def test_what_libraries_make_of_a_failing_disk_is_one_line(shards, tmp_path, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("bcmb_jax.training.checkpoint.Checkpoints.save", fail)
    with pytest.raises(StorageError, match=r"run: .* MB are free\); mend that") as caught:
        train(tiny_run(shards), tmp_path / "run")
    assert "\n" not in str(caught.value)
