# SPDX-License-Identifier: Apache-2.0
"""The exceptions that a user is meant to read, and the exit status that each ends a command with.

No message quotes a value of a record: its file, line, column and counts are enough to find it, and
logs are read by more people than data. `record_error` makes the messages about records, and `run`
keeps back those of errors that nobody foresaw.

The statuses are told apart by whatever started the command: 75 and 69 mean "run the same command
again", all others that somebody has to look.
"""

import errno
import os
import re
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

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

DONE, UNEXPECTED, HUNG, PREEMPTED, INTERRUPTED = 0, 1, 70, 75, 130
"""The command is complete; it met an error that nobody foresaw; it was ended because it, or another
process of its run, did not move; it was told to stop, has saved, and wants to be started again; it
was stopped from the keyboard."""

LESS_MEMORY = {
    "train": "lower config.rows_per_microbatch or set config.remat=True, which change no result",
    "finetune": "lower --batch-size",
    "evaluate": "lower --batch-size or --positions",
    "": "give fewer texts at once, or shorter ones, or end other programs on this device",
}
"""How to need less memory, by command."""

LONGEST_MESSAGE = 2000
"""Characters of a message; of a longer one the middle is left out."""

DEBUG = "BCMB_JAX_DEBUG"
"""Environment variable that has unexpected errors printed whole; they may quote data then."""

_OURS = ("bcmb_jax", "conversion", "scripts", "configs")
_FRAMES = 8
_QUOTED = re.compile(r"(?<!\w)([`'\"]).*\1", re.DOTALL)


class InputError(ValueError):
    """An error in something that the user gave.

    The message is a single line that names the thing, the numbers and the fix; commands print it
    without a traceback. Names that come out of files are shown with their control characters
    escaped, and a message is never longer than `LONGEST_MESSAGE`.
    """

    exit_status = 2

    def __init__(self, message: str):
        message = _bounded(message)
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


_EXPECTED = (InputError, NumericsError, PeerLostError, StorageError)
_PLAIN = (*_EXPECTED, OSError, ImportError, MemoryError)


def record_error(file: str | Path, line: int, what: str, *, column: int = 0) -> InputError:
    """Return the error about a record, which says where it stands and never what it holds.

    Args:
      line: from 1; the row of Parquet, the sample of MDS; 0 for none.
      what: what is wrong and how to mend it, without any value of the record.
      column: from 1; 0 for none.
    """
    places = [f"{name} {n}" for name, n in (("line", line), ("column", column)) if n]
    return InputError(f"{', '.join([str(file), *places])}: {what}")


def _bounded(message: str) -> str:
    if len(message) <= LONGEST_MESSAGE:
        return message
    half = (LONGEST_MESSAGE - 3) // 2
    return f"{message[:half]} … {message[-half:]}"


def reason(error: BaseException) -> str:
    """Return the first line of another library's exception, or its type where it has no text.

    What the library puts in quotes is left out, as it may be of the data: of the system's errors
    it is the name of a file, and stays.
    """
    text = str(error) if _is_plain(error) else _QUOTED.sub("…", str(error))
    first = text.strip().partition("\n")[0][:200]
    return first if first.strip("…") else type(error).__name__


def describe(error: BaseException) -> str:
    """Return what may be said of an error: its message, or its kind where that may quote data.

    Messages of this package, of the system, about imports and memory, and of JAX and Flax name
    files, numbers, shapes and devices.
    """
    kind = type(error).__name__
    return _bounded(str(error) or kind) if _is_plain(error) else f"unexpected {kind}"


def _is_plain(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return isinstance(error, _PLAIN) or library in ("flax", "jax", "jaxlib")


def of_the_device(error: BaseException, command: str = "") -> InputError | None:
    """Return the error of JAX about memory, or a device that is not there, in plain words.

    None is returned for every other error. JAX need not be imported for it.

    Args:
      command: a name, by which the options that save memory are named.
    """
    text = str(error)
    if isinstance(error, MemoryError) or (
        _is_plain(error) and re.match(r"RESOURCE_EXHAUSTED|.*\bOut of memory\b", text)
    ):
        asked = re.search(r"allocat\w* ([\d.]+ ?[KMGT]?i?B|\d+ bytes)", text)
        size = f" ({asked[1]} more were needed)" if asked else ""
        return InputError(f"out of memory{size}: {LESS_MEMORY.get(command, LESS_MEMORY[''])}")
    # JAX says it with a RuntimeError, or with an AssertionError without a word.
    last = traceback.extract_tb(error.__traceback__)[-1:]
    starting = bool(last) and Path(last[0].filename).parts[-3:] == ("jax", "_src", "xla_bridge.py")
    if starting and isinstance(error, RuntimeError | AssertionError):
        return InputError(
            "JAX finds no device of the kind asked for (JAX_PLATFORMS is "
            f"{os.environ.get('JAX_PLATFORMS') or 'not set'}): unset it, or see what bcmb doctor "
            "says of the GPU and its plugin"
        )
    return None


def run(main: Callable[[], int | None], command: str = "") -> int:
    """Run a command and return its exit status; an error of the kinds above is one line on stderr.

    So is any other `OSError`: of storage if the disk is to blame, else of what the user gave. Of
    everything else the kind and the lines of code that led to it are printed, as the message may
    quote the text that a library stumbled over. What a command writes is private.

    Args:
      command: a name, as for `of_the_device`.
    """
    private.withhold()
    if threading.excepthook is threading.__excepthook__:
        threading.excepthook = lambda failed: _print_unexpected(failed.exc_value)
    if sys.unraisablehook is sys.__unraisablehook__:  # of errors while objects are removed
        sys.unraisablehook = lambda failed: _print_unexpected(failed.exc_value)
    try:
        return main() or DONE
    except _EXPECTED as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        return error.exit_status
    except OSError as error:
        print(f"error: {describe(error)}", file=sys.stderr)
        failed = error.errno in STORAGE_ERRORS
        return StorageError.exit_status if failed else InputError.exit_status
    except KeyboardInterrupt:
        print("error: stopped from the keyboard", file=sys.stderr)
        return INTERRUPTED
    except SystemExit:
        raise
    except BaseException as error:  # a panic of tokenizers, written in Rust, is no Exception
        if (plain := of_the_device(error, command)) is not None:
            print(f"error: {plain}", file=sys.stderr)
            return plain.exit_status
        _print_unexpected(error)
        return UNEXPECTED


def _print_unexpected(error: BaseException | None) -> None:
    """Print what may be said of an error, and where in our code, and below it, it was raised."""
    if error is None or isinstance(error, SystemExit):
        return
    if os.environ.get(DEBUG):
        traceback.print_exception(error)
        return
    root = Path(__file__).parents[1]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [x for x in frames if x.filename.startswith(tuple(f"{root / y}{os.sep}" for y in _OURS))]
    shown = ours if frames[-1:] == ours[-1:] else [*ours, *frames[-1:]]
    hidden = "" if _is_plain(error) else f" (its message may quote data: {DEBUG}=1 shows it)"
    print(f"error: {describe(error)}{hidden}", file=sys.stderr)
    for frame in shown[-_FRAMES:]:
        file = Path(frame.filename)
        file = file.relative_to(root) if file.is_relative_to(root) else Path(*file.parts[-3:])
        print(f"  {file}:{frame.lineno} in {frame.name}", file=sys.stderr)
