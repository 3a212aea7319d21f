# SPDX-License-Identifier: Apache-2.0
"""A disk that fails while a run is training: one line, status 74, and the same end once mended."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from bcmb_jax.errors import DONE, StorageError
from bcmb_jax.training.kept import Checkpoints
from bcmb_jax.training.start import check_room
from tests.fixtures.runs import final_state, lines, tiny_run, train

ROOT = Path(__file__).parents[2]

# Before the fifth step, once the save of the third is written, a shell runs the third argument.
RUN = """
import subprocess, sys
from pathlib import Path
import jax
jax.config.update("jax_num_cpu_devices", 8)
from bcmb_jax.commands.train import silence_orbax
from bcmb_jax.data.loader import Steps
from bcmb_jax.errors import run
from bcmb_jax.signals import end_process
from tests.fixtures.runs import tiny_run, train
silence_orbax()
original = Steps.read_ahead
def read_ahead(self):
    for count, item in enumerate(original(self)):
        if count == 4 and len(sys.argv) > 3:
            wait = "while ls disk/run/checkpoints | grep -q tmp; do sleep 0.1; done; "
            subprocess.run(wait + sys.argv[3], shell=True, check=True)
        yield item
Steps.read_ahead = read_ahead
config = tiny_run(Path(sys.argv[1]))
config.save_every = 3
end_process(run(lambda: train(config, Path(sys.argv[2]))))
"""

# Mount, break after the run has started to write, run, mend, run again, and copy the result out.
IN_A_SMALL_DISK = """
mount -t tmpfs -o size=$1 tmpfs disk || exit 77
"$2" -c "$3" "$4" disk/run 2> first; echo $? > status
mount -o remount,size=100m disk
"$2" -c "$3" "$4" disk/run 2> second; echo $? >> status
cp -r disk/run result
"""


# The mount point is seen through `disk`, what is stored there also through `store`.
ON_A_LOST_DISK = """
mkdir store disk && mount -t tmpfs tmpfs store && mount --bind store disk || exit 77
"$2" -c "$3" "$4" disk/run "$1" 2> first; echo $? > status
ls -A disk > beneath
eval "$5"
"$2" -c "$3" "$4" disk/run 2> second; echo $? >> status
cp -r disk/run result
"""

IN_A_NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c")


def in_a_namespace(folder, script, *arguments):
    """Run a shell script with mounts of its own; return what the two runs in it printed."""
    if not shutil.which("unshare"):
        pytest.skip("needs unshare")
    done = subprocess.run(
        [*IN_A_NAMESPACE, script, "sh", *arguments],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if not (folder / "status").exists():
        pytest.skip(f"no file system of its own: {done.stderr}")
    first, second = (folder / "first").read_text(), (folder / "second").read_text()
    assert (folder / "status").read_text() == "74\n0\n", first + second
    assert "Traceback" not in first
    assert "asyncio" not in first
    (error,) = [line for line in first.splitlines() if line.startswith("error: ")]
    return error


@pytest.fixture(scope="module")
def undisturbed(shards, tmp_path_factory):
    config, workdir = tiny_run(shards), tmp_path_factory.mktemp("undisturbed")
    config.save_every = 3
    assert train(config, workdir) == DONE
    return workdir


def assert_same_end(workdir, undisturbed):
    found, right = final_state(workdir)[0], final_state(undisturbed)[0]
    jax.tree.map(np.testing.assert_array_equal, found, right)
    assert lines(workdir) == lines(undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["900k", "1500k"])
def test_a_full_disk_ends_the_run_in_a_line_and_mended_it_ends_equal(
    shards, tmp_path, undisturbed, size
):
    (tmp_path / "disk").mkdir()
    error = in_a_namespace(tmp_path, IN_A_SMALL_DISK, size, sys.executable, RUN, str(shards))
    # A save is refused, or it fails: one that is still being written takes its room meanwhile.
    assert re.search(r"No space left on device|MB free, a checkpoint takes 0\.\d MB", error)
    assert_same_end(tmp_path / "result", undisturbed)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("damage", "repair", "message"),
    [
        (
            "mount --bind disk disk && mount -o remount,bind,ro disk",
            "umount disk",
            "disk/run: Read-only file system",
        ),
        ("umount -l disk", "mount --bind store disk", "disk/run is gone, or not the folder"),
    ],
)
def test_a_disk_lost_in_training_ends_the_run_in_a_line_and_mended_it_ends_equal(
    shards, tmp_path, undisturbed, damage, repair, message
):
    arguments = (damage, sys.executable, RUN, str(shards), repair)
    error = in_a_namespace(tmp_path, ON_A_LOST_DISK, *arguments)
    assert message in error
    assert (tmp_path / "beneath").read_text() == ("run\n" if "bind" in damage else "")
    assert_same_end(tmp_path / "result", undisturbed)


def test_a_folder_that_has_gone_is_not_made_again(shards, tmp_path, monkeypatch):
    original, workdir = Checkpoints.save, tmp_path / "run"

    def save(*arguments):
        original(*arguments)
        arguments[0]._manager.wait_until_finished()
        workdir.rename(tmp_path / "elsewhere")

    monkeypatch.setattr(Checkpoints, "save", save)
    with pytest.raises(StorageError, match=r"run is gone, or not the folder .*unmounted"):
        train(tiny_run(shards), workdir)
    assert [x.name for x in tmp_path.iterdir()] == ["elsewhere"]
    begun = (tmp_path / "elsewhere").stat()
    workdir.mkdir()
    with pytest.raises(StorageError, match="not the folder any more that this run writes"):
        check_room({}, workdir, begun)


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

    monkeypatch.setattr("bcmb_jax.training.kept.Checkpoints.save", fail)
    with pytest.raises(StorageError, match=r"run: .* MB are free\); mend that") as caught:
        train(tiny_run(shards), tmp_path / "run")
    assert "\n" not in str(caught.value)
