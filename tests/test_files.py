# SPDX-License-Identifier: Apache-2.0
"""Folders and files that appear whole or not at all; versions."""

import os
import socket
from pathlib import Path

import pytest

from bcmb_jax import files
from bcmb_jax.files import clear_leftovers, new_directory, write_json


def test_a_new_folder_replaces_the_old_one_at_the_end(tmp_path):
    target = tmp_path / "deep" / "model"
    with new_directory(target) as new:
        (new / "weights").write_text("1")
        assert not target.exists()
    with new_directory(target) as new:
        (new / "weights").write_text("2")
        assert (target / "weights").read_text() == "1"
    assert (target / "weights").read_text() == "2"
    assert [path.name for path in target.parent.iterdir()] == ["model"]


def test_after_an_error_everything_is_as_it_was(tmp_path):
    target = tmp_path / "kept"
    target.mkdir()
    with pytest.raises(RuntimeError), new_directory(target) as new:
        (new / "half").write_text("")
        raise RuntimeError
    with pytest.raises(RuntimeError), new_directory(tmp_path / "a" / "b"):
        raise RuntimeError
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert not any(target.iterdir())


def test_a_block_that_removes_the_folder_gives_up(tmp_path):
    target = tmp_path / "kept"
    target.mkdir()
    (target / "theirs").touch()
    with new_directory(target) as new:
        new.rmdir()
    assert (target / "theirs").exists()


def test_what_a_killed_process_left_is_cleared_and_what_it_set_aside_comes_back(tmp_path):
    dead = 2**22 + 1  # above the largest process number
    left = tmp_path / f".model.{socket.gethostname()}-{dead}.abc.partial"
    (left / "old").mkdir(parents=True)
    (left / "old" / "weights").write_text("good")
    running = tmp_path / f".model.{socket.gethostname()}-{os.getppid()}.abc.partial"
    elsewhere = tmp_path / ".model.another-host-1.abc.partial"
    running.mkdir()
    elsewhere.mkdir()
    clear_leftovers(tmp_path / "model")
    assert (tmp_path / "model" / "weights").read_text() == "good"
    assert not left.exists()
    assert running.exists()
    assert elsewhere.exists()
    os.utime(elsewhere, (0, 0))
    clear_leftovers(tmp_path / "model")
    assert not elsewhere.exists()


def test_json_that_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    file = tmp_path / "values.json"
    write_json(file, {"a": 1})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert file.read_text() == '{\n  "a": 1\n}\n'
    assert [path.name for path in tmp_path.iterdir()] == ["values.json"]


def test_a_module_without_a_distribution_of_its_name_has_no_version():
    """FlashAttention-4 alone is imported as `flash_attn`, which lost a report at its end."""
    assert files.versions("jax", "tests").keys() == {"python", "jax"}


def synced(monkeypatch) -> list[str]:
    """Names of what is given to `fsync`, and of what takes its place, in their order."""
    done: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, os.replace

    def told(source, target, how) -> None:
        done.append(f"{Path(source).name} -> {Path(target).name}")
        how(source, target)

    def note(descriptor: int) -> None:
        done.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    monkeypatch.setattr(Path, "rename", lambda a, b: told(a, b, rename))
    monkeypatch.setattr(os, "replace", lambda a, b: told(a, b, replace))
    return done


def test_a_file_is_on_disk_before_it_takes_its_place_and_its_name_after(tmp_path, monkeypatch):
    done = synced(monkeypatch)
    write_json(tmp_path / "values.json", {})
    partial = "values.json.partial"
    assert done == [partial, f"{partial} -> values.json", tmp_path.name]


def test_a_folder_is_on_disk_before_it_takes_its_place_and_its_name_after(tmp_path, monkeypatch):
    (tmp_path / "a").mkdir()
    done = synced(monkeypatch)
    with new_directory(tmp_path / "a" / "b" / "model") as new:
        (new / "inner").mkdir()
        (new / "inner" / "weights").write_text("1")
        (new / "empty").mkdir()
    renamed = done.index("new -> model")
    assert done[:1] == ["a"]  # holds the new folder b
    assert sorted(done[1:renamed]) == ["empty", "inner", "new", "weights"]
    assert done[renamed + 1 :] == ["b"]
