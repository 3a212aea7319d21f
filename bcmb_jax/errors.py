# SPDX-License-Identifier: Apache-2.0
"""The exceptions that a user is meant to read, and the exit status that each ends a command with.

The statuses are told apart by whatever started the command: 75 and 69 mean "run the same command
again", all others that somebody has to look.
"""

import errno
import sys
from collections.abc import Callable

from bcmb_jax import private

STORAGE_ERRORS = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EIO,
    errno.ENODEV,
    errno.ENXIO,
    errno.ESTALE,
    errno.ETIMEDOUT,
)
"""Numbers of system errors for which a disk is to blame."""

DONE, PREEMPTED, HUNG = 0, 75, 70
"""The command is complete; it was told to stop, has saved, and wants to be started again; it was
ended because it, or another process of its run, did not move."""


class InputError(ValueError):
    """An error in something that the user gave.

    The message is a single line that names the thing, the numbers and the fix; commands print it
    without a traceback. Names that come out of files are shown with their control characters
    escaped.
    """

    exit_status = 2

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


class NumericsError(FloatingPointError):
    """A computation that cannot go on because its numbers are not finite, or do not come down."""

    exit_status = 65


class PeerLostError(RuntimeError):
    """Another process of this run, or their coordinator, does not answer any more."""

    exit_status = 69


class StorageError(OSError):
    """A disk that is full, read-only or gone, or that fails to read or write."""

    exit_status = 74


def reason(error: BaseException) -> str:
    """Return the first line of another library's exception, or its type where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def run(main: Callable[[], int | None]) -> int:
    """Run a command and return its exit status; an error of the kinds above is one line on stderr.

    So is any other `OSError`: of storage if the disk is to blame, else of what the user gave. What
    a command writes is private.
    """
    private.withhold()
    try:
        return main() or DONE
    except (InputError, NumericsError, PeerLostError, StorageError) as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        failed = error.errno in STORAGE_ERRORS
        return StorageError.exit_status if failed else InputError.exit_status
