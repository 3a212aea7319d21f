# SPDX-License-Identifier: Apache-2.0
"""The one exception a user is meant to read, and how a command ends with it."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """Something the user gave is wrong.

    The message is a single line that names the thing, the numbers and the fix; scripts print it
    without a traceback and exit with status 2. Names that come out of files are shown with their
    control characters escaped.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def reason(error: BaseException) -> str:
    """The first line of somebody else's exception, or its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def run(main: Callable[[], int | None], *also: type[BaseException]) -> int:
    """The exit status of a command: what `main` returns, or 2 after an `InputError` (or one of
    `also`), which is told in a line on stderr."""
    told: tuple[type[BaseException], ...] = (InputError, *also)
    try:
        return main() or 0
    except told as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
