# SPDX-License-Identifier: Apache-2.0
"""The exception that a user is meant to read, and how a command ends with it."""

import sys
from collections.abc import Callable


class InputError(ValueError):
    """An error in something that the user gave.

    The message is a single line that names the thing, the numbers and the fix; scripts print it
    without a traceback and exit with status 2. Names that come out of files are shown with their
    control characters escaped.
    """

    def __init__(self, message: str):
        super().__init__("".join(c if c.isprintable() else repr(c)[1:-1] for c in message))


def reason(error: BaseException) -> str:
    """Return the first line of another library's exception, or its type where it has no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def run(main: Callable[[], int | None], *also: type[BaseException]) -> int:
    """Run a command and return its exit status.

    An `InputError`, or an error of `also`, is printed in one line on stderr and gives 2.
    """
    expected: tuple[type[BaseException], ...] = (InputError, *also)
    try:
        return main() or 0
    except expected as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
