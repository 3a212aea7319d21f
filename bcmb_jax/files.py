# SPDX-License-Identifier: Apache-2.0
"""Files and folders that appear whole or not at all, their checksums, and package versions."""

import contextlib
import errno
import hashlib
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from bcmb_jax.errors import STORAGE_ERRORS, InputError, StorageError, reason
from bcmb_jax.locks import locked
from bcmb_jax.private import make_directory, opener, settle

log = logging.getLogger(__name__)

Result = TypeVar("Result")

REPORTED_PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "torch",
    "transformers",
    "flash-attn",
    "flash-attn-4",
    "packed-encoders",
)
"""Distributions whose versions stand in results and benchmark reports."""

WAITS = (1.0, 5.0, 20.0)
"""Seconds between tries to read from storage that fails."""

OUT_OF_MEMORY = ("RESOURCE_EXHAUSTED", "ut of memory", "Cannot allocate memory")

STORAGE_FAULTS = tuple(os.strerror(number) for number in STORAGE_ERRORS)
"""The system's words for `STORAGE_ERRORS`, by which they are known inside other messages."""

MOST_JSON, MOST_VALUES = 2**26, 2**21
"""Bytes and values of a JSON file that is read as a whole; a large tokenizer has half of each."""

STALE_SECONDS = 3600
"""Age after which a half-written folder of another machine is taken for abandoned."""


def write_json(file: Path, value: Any, *, indent: int = 2) -> None:
    """Write `value` as JSON with a final newline, whole or not at all."""
    write_text(file, json.dumps(value, indent=indent) + "\n")


def digest_json(value: Any) -> str:
    """Return the SHA-256, in hexadecimal digits, of a value written as JSON in its own order."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()


def _sync(path: Path) -> None:
    """Return when a file's content, or the names in a folder, will outlast a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems know this for files alone
        if error.errno not in (errno.EINVAL, errno.ENOTSUP) or not path.is_dir():
            raise
    finally:
        os.close(descriptor)


def write_text(file: Path, text: str) -> None:
    """Write UTF-8 text, whole or not at all, also where the machine stops half-way."""
    with new_file(file) as out:
        out.write(text.encode())


@contextlib.contextmanager
def new_file(file: Path) -> Iterator[BinaryIO]:
    """Yield a private file that takes the place of `file` when the block ends without an error.

    Its content is on the disk by then, and its name when this returns. A link that somebody has put
    in its place, or in that of the half-written file, is replaced and never followed.
    """
    make_directory(file.parent)
    partial = file.with_name(file.name + ".partial")
    partial.unlink(missing_ok=True)  # of a process that was killed
    try:
        with open(partial, "xb", opener=opener) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    os.replace(partial, file)
    _sync(file.parent)


def read_json(file: Path) -> Any:
    """Return the value that a JSON file holds.

    Raises:
      OSError: the file cannot be read; ValueError: it is not JSON, or too large to be ours.
    """
    with file.open("rb") as stream:
        return parse_json(stream.read(MOST_JSON + 1))


def parse_json(text: str | bytes) -> Any:
    """Return the value of a text in JSON, which takes some hundred bytes of memory for each comma.

    Raises:
      ValueError: it is not JSON, or too large for a config, an index or a tokenizer.
    """
    commas = text.count(",") if isinstance(text, str) else text.count(b",")
    if len(text) > MOST_JSON or commas > MOST_VALUES:
        raise ValueError(f"more than {MOST_JSON:,} bytes or {MOST_VALUES:,} values")
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("too many brackets inside each other") from None


@contextlib.contextmanager
def new_directory(directory: Path, *, wait: bool = False) -> Iterator[Path]:
    """Yield an empty folder that takes the place of `directory` when the block ends.

    It and all that is put into it is made private then, and a link in its place is not followed.
    All its files are on the disk before it is in place, and its name when this returns. After an
    exception `directory` is as it was. A block that removes the folder gives up: nothing is
    replaced. Folders that a killed process left half-written are cleared first, and what such a
    process had already set aside comes back.

    Args:
      wait: until another process that writes `directory` has ended, instead of raising.

    Raises:
      HeldError: another process is writing `directory`.
    """
    directory = directory.expanduser().absolute()
    missing = [parent for parent in directory.parents if not parent.exists()]
    make_directory(directory.parent)
    for parent in missing:
        _sync(parent.parent)
    lock = directory.with_name(f".{directory.name}.lock")
    try:
        with locked(lock, directory, wait=wait):
            yield from _replace_directory(directory)
    except BaseException:
        for parent in missing:
            with contextlib.suppress(OSError):  # somebody else uses it by now
                parent.rmdir()
        raise


def _replace_directory(directory: Path) -> Iterator[Path]:
    clear_leftovers(directory)
    building = Path(
        tempfile.mkdtemp(
            prefix=f".{directory.name}.{socket.gethostname()}-{os.getpid()}.",
            suffix=".partial",
            dir=directory.parent,
        )
    )
    new, old = building / "new", building / "old"
    new.mkdir()
    try:
        yield new
        if new.exists():
            for path in (new, *new.rglob("*")):
                settle(path)
                _sync(path)
            if directory.exists():
                directory.rename(old)
            new.rename(directory)
            _sync(directory.parent)
    except BaseException:
        if old.exists() and not directory.exists():
            old.rename(directory)
        shutil.rmtree(building, ignore_errors=True)
        raise
    shutil.rmtree(building, ignore_errors=True)


def clear_leftovers(directory: Path) -> None:
    """Remove what processes that no longer run left of a new `directory`, beside it."""
    for left in directory.parent.glob(f".{directory.name}.*.partial"):
        if not _is_abandoned(left, directory.name):
            continue
        with contextlib.suppress(OSError):  # another process clears it at the same time
            if (left / "old").exists() and not directory.exists():
                (left / "old").rename(directory)
        shutil.rmtree(left, ignore_errors=True)


def _is_abandoned(left: Path, name: str) -> bool:
    owner = left.name.removeprefix(f".{name}.").removesuffix(".partial").rpartition(".")[0]
    host, _, process = owner.rpartition("-")
    if host == socket.gethostname() and process.isdigit():
        return int(process) != os.getpid() and not _is_running(int(process))
    try:
        return time.time() - left.stat().st_mtime > STALE_SECONDS
    except OSError:
        return False


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # it runs, as somebody else
        return True
    return True


def sha256(file: Path) -> str:
    """Return the SHA-256 of a file's content, in hexadecimal."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def package_version(name: str) -> str | None:
    """Return the version of an installed distribution, or None where it is not installed.

    Distributions are asked, not modules: two of them may install a module of the same name.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions(*packages: str) -> dict[str, str]:
    """Return the versions of Python and of those `packages` that are installed."""
    found = {name: package_version(name) for name in packages}
    python = {"python": platform.python_version()}
    return python | {name: version for name, version in found.items() if version is not None}


def read_patiently(directory: Path, read: Callable[[], Result]) -> Result:
    """Read from a folder, with patience for storage that fails now and then.

    Raises:
      StorageError: a file cannot be read after several tries, or there is too little memory.
      Exception: whatever `read` raised, where every file of the folder can be read whole. Then the
        content is to blame.
    """
    for wait in (*WAITS, None):
        try:
            return read()
        except Exception as error:
            fault = _fault_of_storage(directory, error)
            if fault is None:
                raise
            if wait is None:
                raise StorageError(
                    f"{directory} could not be read in {len(WAITS) + 1} tries: {fault}; nothing "
                    "was changed, start again when that is mended"
                ) from error
            log.warning("%s: %s; trying again in %g s", directory, fault, wait)
        time.sleep(wait)
    raise AssertionError("the last try returns or raises")


def _fault_of_storage(directory: Path, error: Exception) -> str | None:
    """Return why an error says nothing about the content of `directory`; None if it does."""
    if isinstance(error, MemoryError) or any(sign in str(error) for sign in OUT_OF_MEMORY):
        return f"out of memory ({reason(error)})"
    if isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
        return reason(error)
    try:
        directory.stat()
        for file in directory.rglob("*"):
            if file.is_file():
                sha256(file)
    except OSError as unreadable:
        return reason(unreadable)
    return None


@contextlib.contextmanager
def storage_errors(directory: Path) -> Iterator[None]:
    """Turn what a failing disk raises while `directory` is written into one line.

    Raises:
      StorageError: names the folder, what is wrong, and the free space.
    """
    try:
        yield
    except (InputError, StorageError):
        raise
    except Exception as error:  # libraries wrap the system's error in types of their own
        fault = next((text for text in STORAGE_FAULTS if text in str(error)), None)
        if fault is None and getattr(error, "errno", None) not in STORAGE_ERRORS:
            raise
        try:
            disk = shutil.disk_usage(directory)
            left = f"{disk.free / 1e6:,.1f} MB of {disk.total / 1e6:,.1f} MB are free"
        except OSError:
            left = "the folder is gone"
        raise StorageError(
            f"{directory}: {fault or reason(error)} ({left}); mend that and run the same command "
            "again, it goes on from the last checkpoint"
        ) from error
