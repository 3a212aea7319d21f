# SPDX-License-Identifier: Apache-2.0
"""Folders that appear whole or not at all, and never in place of something else."""

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from bcmb_jax.errors import InputError

OURS_TO_REPLACE = (
    "README.md",
    "manifest.json",
    "config.json",
    "model*.safetensors*",
    "tokenizer",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "latest-rank0.pt",
    "state",
    "meta",
    "_CHECKPOINT_METADATA",
    "commit_success.txt",
)
"""All that a converted folder holds; a folder with anything else is never overwritten."""


def publish(directory: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    """Give `write` an empty folder, and move it to `directory` when it has returned.

    Raises:
      InputError: `directory` exists and may not be replaced, or holds other things than a model.
    """
    directory = directory.expanduser().absolute()
    refuse_to_lose(directory, overwrite=overwrite)
    parents = [place for place in directory.parents if not place.exists()]
    directory.parent.mkdir(parents=True, exist_ok=True)
    try:
        _write_and_move(directory, write, overwrite=overwrite)
    except BaseException:
        for place in parents:
            place.rmdir()
        raise


def _write_and_move(directory: Path, write: Callable[[Path], None], *, overwrite: bool) -> None:
    with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as place:
        new, old = Path(place) / "new", Path(place) / "old"
        new.mkdir()
        write(new)
        refuse_to_lose(directory, overwrite=overwrite)
        if directory.exists():
            directory.rename(old)
        try:
            new.rename(directory)
        except OSError:
            if old.exists():
                old.rename(directory)
            raise


def refuse_to_lose(directory: Path, *, overwrite: bool) -> None:
    """Raise `InputError` where writing `directory` would destroy something not meant to be."""
    if directory.exists() and not directory.is_dir():
        raise InputError(f"{directory} is a file; give a folder")
    if not directory.exists() or not any(directory.iterdir()):
        return
    if not overwrite:
        raise InputError(f"{directory} exists; give another folder, or --overwrite")
    foreign = sorted(
        entry.name
        for entry in directory.iterdir()
        if not any(entry.match(pattern) for pattern in OURS_TO_REPLACE)
    )
    if foreign:
        raise InputError(
            f"{directory} holds more than a converted model ({foreign[0]}); give another folder"
        )


def check_free_space(directory: Path, needed: int) -> None:
    """Raise `InputError` unless the disk of `directory` has `needed` bytes."""
    existing = directory.expanduser().absolute()
    while not existing.exists():
        existing = existing.parent
    free = shutil.disk_usage(existing).free
    if free < needed:
        raise InputError(
            f"{directory} needs {needed / 1e9:.1f} GB and its disk has {free / 1e9:.1f} GB free"
        )
