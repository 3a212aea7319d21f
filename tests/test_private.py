# SPDX-License-Identifier: Apache-2.0
"""Files and folders are for their owner alone, or for the group too where that is asked for."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from bcmb_jax import commands, private
from bcmb_jax.errors import run
from bcmb_jax.files import new_directory, new_file, write_json
from bcmb_jax.locks import locked
from bcmb_jax.training.profiling import record
from conversion import convert
from conversion.export import new_model_folder
from tests.fixtures.modes import modes
from tests.fixtures.task_data import clinical_sentences
from tests.fixtures.tiny_weights import random_weights


@pytest.fixture(autouse=True)
def usual_umask(monkeypatch) -> Iterator[None]:
    monkeypatch.setattr(private, "_withheld", private.ALL)
    monkeypatch.setattr(private, "_callers_umask", None)
    before = os.umask(0o022)
    yield
    os.umask(before)


def write_all(folder: Path) -> None:
    """Write in each of the ways that this package has, and as libraries do in a new folder."""
    write_json(folder / "results" / "results.json", {})
    with new_directory(folder / "deep" / "model") as new:
        (new / "inner").mkdir()
        (new / "inner" / "weights").write_text("")
    with locked(folder / "lock", folder):
        (folder / "results" / "kept").write_bytes((folder / "lock").read_bytes())
        assert modes(folder / "lock") <= {0o600, 0o640}


def test_from_python_folders_are_private_under_any_umask(tmp_path):
    tmp_path.chmod(0o755)
    write_all(tmp_path)
    (tmp_path / "results" / "kept").unlink()  # in a folder that others cannot enter
    assert modes(tmp_path / "results") | modes(tmp_path / "deep") == {0o700, 0o600}
    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755  # which existed
    assert os.umask(0o022) == 0o022


@pytest.mark.parametrize(
    ("umask", "withheld", "folders", "files"),
    [
        (0o022, private.ALL, 0o700, 0o600),
        (0o022, private.ALL_BUT_READING, 0o750, 0o640),
        (0o277, private.ALL_BUT_READING, 0o500, 0o400),
        (0o033, private.ALL_BUT_READING, 0o740, 0o640),
        (0o077, private.ALL_BUT_READING, 0o700, 0o600),
    ],
)
def test_a_command_withholds_and_a_stricter_umask_stays(
    tmp_path, umask, withheld, folders, files
) -> None:
    os.umask(umask)
    private.withhold()
    private.withhold(withheld)
    private.make_directory(tmp_path / "made")
    assert modes(tmp_path / "made") == {folders}
    (tmp_path / "file").touch()
    assert modes(tmp_path / "file") == {files}
    if folders & 0o200:
        write_all(tmp_path / "made")
        assert modes(tmp_path / "made") == {folders, files}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ((), {0o700, 0o600}),
        pytest.param(("--group-readable",), {0o750, 0o640}, marks=pytest.mark.slow),
    ],
)
def test_every_command_writes_for_its_owner_or_group(
    tmp_path, shards, folder, options, expected
) -> None:
    """Training is in tests/commands/test_train_command.py."""
    out, rows = tmp_path / "out", "".join(f"a {i},{i}\n" for i in range(9))
    (tmp_path / "notes.csv").write_text(f"text,patient\n{rows}")
    data = clinical_sentences(tmp_path / "data", "conll", train=30, held_out=5)

    def command(*arguments) -> None:
        assert run(lambda: commands.main(*map(str, arguments), *options)) == 0

    tokenizer = ("--tokenizer", shards / "tokenizer", "--validation-fraction", "0.3")
    source = ("--source", "csv", "--input", tmp_path / "notes.csv", "--group-column", "patient")
    command("prepare", *source, *tokenizer, "--output", out / "deep" / "shards")
    texts = ("--task", "conll", "--data", data, "--backend", "text", "--seeds", "1")
    command("evaluate", *texts, "--output", out / "results")
    command("report", out / "results", "--output", out / "tables")
    command("ledger", out / "deep" / "shards", "--output", out / "corpus")
    for to, write in convert.WRITERS.items():
        if options:  # and compares, which takes time
            command("convert", "--input", folder, "--to", to, "--output", out / to)
        elif to != "composer":  # which needs PyTorch
            with new_model_folder(out / to, overwrite=False) as new:
                write(random_weights(), new, to)
    speed = ("loader", "--documents", "9", "--lengths", "512")
    command("benchmark", *speed, "--output", out / "speed" / "loader.json")
    record(out / "profile", lambda: jax.block_until_ready(jax.numpy.ones(3)), [])
    assert modes(out) == expected
    assert len(list(out.rglob("*"))) > 30


def test_links_are_replaced_and_never_written_through(tmp_path) -> None:
    theirs, results = tmp_path / "theirs", tmp_path / "results.json"
    theirs.write_text("as it was")
    for name in ("results.json", "results.json.partial"):
        (tmp_path / name).unlink(missing_ok=True)
        (tmp_path / name).symlink_to(theirs)
        write_json(results, {})
        assert results.read_text() == "{}\n"
    (tmp_path / "lock").symlink_to(theirs)
    with pytest.raises(OSError, match="symbolic link"), locked(tmp_path / "lock", tmp_path):
        pass
    assert theirs.read_text() == "as it was"


def test_a_link_in_place_of_a_folder_is_replaced(tmp_path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "theirs")
    with new_directory(tmp_path / "model") as new:
        (new / "weights").touch()
    assert not (tmp_path / "model").is_symlink()
    assert not any((tmp_path / "theirs").iterdir())


def test_a_file_that_fails_leaves_nothing(tmp_path) -> None:
    with pytest.raises(RuntimeError), new_file(tmp_path / "plot.png") as out:
        out.write(b"half")
        raise RuntimeError
    assert not any(tmp_path.iterdir())
