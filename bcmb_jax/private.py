# SPDX-License-Identifier: Apache-2.0
"""Files and folders that only their owner may open or, where that is asked for, the group may read.

A command sets the umask of its process, so that files of libraries obey too: checkpoints, plots,
TensorBoard, traces. From Python the umask is the caller's, and what this package makes is private.
"""

import argparse
import contextlib
import os
import stat
from pathlib import Path

ALL, ALL_BUT_READING = 0o077, 0o027
"""Permissions of everybody else; the same without those by which the group reads."""

_withheld = ALL
_callers_umask: int | None = None


def withhold(permissions: int = ALL) -> None:
    """Make nothing in this process from now on that has `permissions`; a stricter umask stays."""
    global _withheld, _callers_umask
    if _callers_umask is None:
        _callers_umask = os.umask(permissions)
    os.umask(_callers_umask | permissions)
    _withheld = permissions


def add_option(parser: argparse.ArgumentParser) -> None:
    """Add `--group-readable` to a command that writes."""
    parser.add_argument("--group-readable", action=_LetGroupRead, nargs=0, help=GROUP_READABLE)


GROUP_READABLE = "Let your group read what is written; without it only you can."


class _LetGroupRead(argparse.Action):
    def __call__(self, *_: object) -> None:
        withhold(ALL_BUT_READING)


def make_directory(directory: Path) -> None:
    """Make a folder, and those above it, where they are missing; what exists stays as it is."""
    if not directory.parent.exists():
        make_directory(directory.parent)
    directory.mkdir(0o777 & ~_withheld, exist_ok=True)


def opener(file: str, flags: int) -> int:
    """Open a file for `open`, which must not be a link; a new one is private."""
    return os.open(file, flags | os.O_NOFOLLOW, 0o666 & ~_withheld)


def settle(path: Path) -> None:
    """Give a file or folder the permissions that are meant, whatever the library that made it did.

    These are its owner's own and, where the group may read, the owner's without writing for it.
    """
    mode = stat.S_IMODE(path.lstat().st_mode)
    meant = mode | (mode & 0o700) >> 3
    meant &= ~(_withheld | (_callers_umask or 0) & 0o077)
    if meant != mode and not path.is_symlink():
        with contextlib.suppress(OSError):  # some file systems know no permissions
            path.chmod(meant)
