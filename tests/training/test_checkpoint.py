# SPDX-License-Identifier: Apache-2.0
"""Checkpoints whose storage fails or whose bits flip: nothing is moved or loaded wrongly."""

import contextlib
import errno
import json
import logging
import os
import re
import shutil
import threading

import jax
import numpy as np
import pytest

from bcmb_jax import files
from bcmb_jax.config import RunConfig
from bcmb_jax.errors import DONE, InputError, StorageError
from bcmb_jax.training import checkpoint, kept, start
from bcmb_jax.training.step import make_optimizer
from tests.fixtures.processes import together
from tests.fixtures.runs import damage_state, final_state, tiny_run, train


@pytest.fixture(scope="module")
def finished(shards, tmp_path_factory):
    """A run of four of its eight steps, with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("finished")
    config = tiny_run(shards)
    config.save_every, config.eval_every, config.max_tokens = 2, 0, 3_000
    assert train(config, workdir) == DONE
    return workdir


@pytest.fixture
def workdir(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def config(shards):
    config = tiny_run(shards)
    config.save_every, config.eval_every, config.max_tokens = 2, 0, 3_000
    return config


@pytest.mark.parametrize("bits", [150, pytest.param(None, marks=pytest.mark.slow)])
def test_flipped_bits_of_meta_are_damage_or_change_nothing(workdir, bits):
    folder = checkpoint.latest(workdir)
    right = checkpoint.read_meta(folder)
    damaged = 0
    for file in sorted(x for x in (folder / "meta").rglob("*") if x.is_file()):
        content = file.read_bytes()
        every = np.arange(8 * len(content))
        chosen = every if bits is None else np.random.default_rng(0).choice(every, bits)
        for bit in chosen:
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            file.write_bytes(changed)
            try:
                assert checkpoint.read_meta(folder) == right
            except checkpoint.DamagedCheckpoint:
                damaged += 1
        file.write_bytes(content)
    assert damaged > 100
    assert checkpoint.read_meta(folder) == right


@pytest.mark.parametrize("count", [10, pytest.param(50, marks=pytest.mark.slow)])
def test_faults_in_files_are_damage_or_change_nothing(finished, tmp_path, count):
    whole = checkpoint.latest(finished)
    right, meta = checkpoint.load(whole)
    names = sorted(x.relative_to(whole) for x in whole.rglob("*") if x.is_file())
    random = np.random.default_rng(0)
    damaged = 0
    for number in range(count):
        folder = tmp_path / str(number)
        shutil.copytree(whole, folder)
        file = folder / names[number % len(names)]
        content = bytearray(file.read_bytes())
        place = int(random.integers(len(content)))
        match number // len(names) % 3:
            case 0:
                content[place] ^= 1 << int(random.integers(8))
                file.write_bytes(content)
            case 1:
                os.truncate(file, place)
            case 2:
                file.unlink()
        told = ""
        try:
            state, found = checkpoint.load(folder)
            jax.tree.map(np.testing.assert_array_equal, state, right)  # Orbax keeps copies
            assert found == meta
        except checkpoint.DamagedCheckpoint as error:
            damaged, told = damaged + 1, str(error)
        assert "\n" not in told
    assert damaged >= count // 5


FAULTS = [
    OSError(errno.EIO, "Input/output error"),
    PermissionError(errno.EACCES, "Permission denied"),
    MemoryError(),
    ValueError("RESOURCE_EXHAUSTED: Out of memory allocating 123 bytes"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda x: type(x).__name__)
@pytest.mark.parametrize("place", ["_restore", "_restore_meta"])
def test_storage_that_fails_moves_nothing(workdir, config, monkeypatch, fault, place):
    monkeypatch.setattr(files, "WAITS", (0.0, 0.0))
    before = sorted(x.relative_to(workdir) for x in workdir.rglob("*"))

    def fail(*_, **__):
        raise fault

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, place, fail)
        with pytest.raises(StorageError, match="could not be read in 3 tries") as caught:
            train(config, workdir)
    assert "\n" not in str(caught.value)
    assert sorted(x.relative_to(workdir) for x in workdir.rglob("*")) == before
    assert train(config, workdir) == DONE


def test_storage_that_fails_for_a_moment_is_tried_again(workdir, config, monkeypatch, caplog):
    monkeypatch.setattr(files, "WAITS", (0.0, 0.0))
    restore, faults = checkpoint._restore, [OSError(errno.EIO, "Input/output error")]

    def fail_once(*arguments):
        if faults:
            raise faults.pop()
        return restore(*arguments)

    monkeypatch.setattr(checkpoint, "_restore", fail_once)
    with caplog.at_level(logging.WARNING):
        assert train(config, workdir) == DONE
    assert "trying again" in caplog.text
    assert not (workdir / "checkpoints-damaged").exists()


@pytest.mark.slow
def test_what_was_proved_wrong_is_moved_aside_and_can_be_moved_back(workdir, config, caplog):
    newest = checkpoint.latest(workdir)
    meta = next(x for x in (newest / "meta").rglob("*") if x.is_file())
    content = meta.read_bytes()
    meta.write_bytes(content.replace(b"tokens_seen", b"tokens_sean", 1))
    with caplog.at_level(logging.ERROR):
        assert train(config, workdir) == DONE
    moved = workdir / "checkpoints-damaged" / newest.name
    assert f"to undo: mv {moved} {newest}" in caplog.text
    (moved / "meta" / meta.name).write_bytes(content)
    shutil.rmtree(newest)
    moved.rename(newest)
    assert checkpoint.read_meta(newest)["progress"]["step"] == int(newest.name)


def restored_by_two(workdir, config, monkeypatch, fails):
    """Restore in two processes, of which the one numbered `fails` finds the newest one damaged."""
    run = RunConfig.from_dict(config.to_dict())
    prepared = start.prepare(run)
    like = start.abstract_state(prepared.shapes, make_optimizer(run), prepared.mesh)
    newest, read_state = checkpoint.latest(workdir), kept.read_state

    def read(folder, like):
        if folder == newest and threading.current_thread().name == fails:
            raise checkpoint.DamagedCheckpoint(f"checkpoint {folder} is damaged here")
        return read_state(folder, like)

    def work(peers):
        with contextlib.closing(kept.Checkpoints(newest.parent, 3, peers)) as checkpoints:
            _, progress = checkpoints.restore(like, lambda meta: None)
            return progress.step

    monkeypatch.setattr(kept, "read_state", read)
    return together(2, work)


def test_two_processes_go_back_to_the_same_checkpoint(workdir, config, monkeypatch):
    newest = checkpoint.latest(workdir)
    damage_state(newest)
    assert restored_by_two(workdir, config, monkeypatch, "none") == [2, 2]
    assert [x.name for x in (workdir / "checkpoints-damaged").iterdir()] == [newest.name]


@pytest.mark.parametrize("fails", ["0", "1"])
def test_damage_that_one_process_alone_finds(workdir, config, monkeypatch, fails):
    newest, found = checkpoint.latest(workdir), restored_by_two(workdir, config, monkeypatch, fails)
    if fails == "0":  # it decides
        assert found == [2, 2]
        return
    for error in found:
        assert isinstance(error, StorageError)
        assert re.search(
            f"^process 1 on .*{newest} is damaged here; process 0 .* whole", str(error)
        )
    assert newest.is_dir()
    assert not (workdir / "checkpoints-damaged").exists()


def test_a_checkpoint_of_version_1_is_read_with_a_line_that_says_so(workdir, config, caplog):
    expected = final_state(workdir)[0]
    for folder in (workdir / "checkpoints").iterdir():
        file = next(x for x in (folder / "meta").rglob("*") if x.is_file())
        content = json.loads(file.read_text())["content"]
        kept = {k: v for k, v in content["checksums"].items() if not k.startswith("health")}
        file.write_text(json.dumps(content | {"checksums": kept}))
    with pytest.raises(checkpoint.DamagedCheckpoint, match="tensors do not have their checksum"):
        checkpoint.load(checkpoint.latest(workdir))  # it holds the health that version 1 had not
    with caplog.at_level(logging.INFO):
        content = checkpoint.read_meta(checkpoint.latest(workdir))
    assert "is of an early version" in caplog.text
    assert content["progress"]["step"] == expected.opt_state.step


def test_a_later_version_is_not_called_damaged(workdir):
    file = next(x for x in (checkpoint.latest(workdir) / "meta").rglob("*") if x.is_file())
    content = json.loads(file.read_text())["content"]
    seal = files.digest_json([3, content])
    file.write_text(json.dumps({"version": 3, "content": content, "sha256": seal}))
    with pytest.raises(InputError, match="is of version 3, this program reads 2") as caught:
        checkpoint.read_meta(checkpoint.latest(workdir))
    assert not isinstance(caught.value, checkpoint.DamagedCheckpoint)
