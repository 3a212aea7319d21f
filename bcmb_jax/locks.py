# SPDX-License-Identifier: Apache-2.0
"""A lock that keeps two processes from writing one folder, also across hosts.

The kernel's lock (`flock`) is released when its process dies in whatever way. Some network file
systems keep it on one host only, so the lock file also names its holder, who renews its time.
"""

import contextlib
import errno
import fcntl
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from bcmb_jax.errors import InputError
from bcmb_jax.private import opener

HEARTBEAT = 15.0
"""Seconds between two renewals of a held lock's time."""

STALE = 300.0
"""Seconds without a renewal after which a lock of another host is taken for abandoned."""


POLL = 0.2
"""Seconds between two tries of a process that waits."""


class HeldError(InputError):
    """A folder that another process is writing."""


@contextlib.contextmanager
def locked(file: Path, what: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold the lock `file` for the block; it is removed at the end.

    Args:
      what: the folder that is protected, for the message.
      wait: until it is free, instead of raising.

    Raises:
      HeldError: another process holds it; the message names process, host and time.
      OSError: the file cannot be written.
    """
    stream = None
    while stream is None:
        try:
            stream = _try_to_lock(file, what)
        except HeldError:
            if not wait:
                raise
            time.sleep(POLL)
    released = threading.Event()
    renewal = threading.Thread(target=_renew, args=(file, released), name="lock", daemon=True)
    renewal.start()
    try:
        yield
    finally:
        released.set()
        renewal.join()
        with contextlib.suppress(OSError):  # before it is released: see `_try_to_lock`
            file.unlink()
        stream.close()


def _try_to_lock(file: Path, what: Path) -> TextIO | None:
    """Return the locked file, or None where its holder removed it just now."""
    stream = open(file, "a+", encoding="utf-8", opener=opener)  # noqa: SIM115 - the caller closes it
    try:
        holder = _read_holder(stream)
        if not _flock(stream) or _is_held_elsewhere(stream, holder):
            until = time.monotonic() + 1  # it has the lock, and is about to write who it is
            while not holder and time.monotonic() < until:
                time.sleep(0.02)
                holder = _read_holder(stream)
            raise HeldError(
                f"{what} is being written by process {holder.get('process', '?')} on "
                f"{holder.get('host', '?')} since {holder.get('since', '?')}: wait until it ends, "
                f"or give another folder (if that process is gone for certain, delete {file})"
            )
        try:
            removed = not os.path.samestat(os.fstat(stream.fileno()), file.stat())
        except FileNotFoundError:
            removed = True
        if removed:
            stream.close()
            return None
        stream.truncate(0)
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        stream.write(
            json.dumps({"host": socket.gethostname(), "process": os.getpid(), "since": since})
        )
        stream.flush()
    except BaseException:
        stream.close()
        raise
    return stream


def _flock(stream: TextIO) -> bool:
    """Take the kernel's lock; return whether it was free. Unknown to the file system is free."""
    try:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS)
    return True


def _read_holder(stream: TextIO) -> dict[str, object]:
    stream.seek(0)
    try:
        holder = json.loads(stream.read(1000))
    except ValueError:
        return {}
    return holder if isinstance(holder, dict) else {}


def _is_held_elsewhere(stream: TextIO, holder: dict[str, object]) -> bool:
    age = time.time() - os.fstat(stream.fileno()).st_mtime
    return bool(holder) and holder.get("host") != socket.gethostname() and age < STALE


def _renew(file: Path, released: threading.Event) -> None:
    while not released.wait(HEARTBEAT):
        with contextlib.suppress(OSError):
            os.utime(file)
