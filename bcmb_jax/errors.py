# SPDX-License-Identifier: Apache-2.0
"""The one exception a user is meant to read."""


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
