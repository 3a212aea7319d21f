# SPDX-License-Identifier: Apache-2.0
"""Text in files that are made to be shared: no path of this machine, no markup out of data."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

MARKUP = re.compile(r"[\\`*\[\]<>|]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)")
"""Characters that mean something in a line of Markdown; not the underscore inside a word."""
LONGEST_LABEL = 100
"""Characters of a label's name; a longer one is a text, which no model and no result may carry."""


def shared_path(path: str) -> str:
    """Return a path from the working folder down, or else its last part alone.

    Relative paths and names of the hub stay as they are.
    """
    if path.startswith("~") or ".." in Path(path).parts:
        return Path(path).name
    if not Path(path).is_absolute():
        return path
    below = Path(path).is_relative_to(Path.cwd())
    return str(Path(path).relative_to(Path.cwd())) if below else Path(path).name


def shared_command(arguments: Sequence[str], data: Collection[Path] = ()) -> str:
    """Return a command line with each path, alone or behind "=", as `shared_path` has it.

    Args:
      data: input; of a file, whose name may be a patient's, only "FILE" is shown.
    """
    files = {str(path) for path in data if path.is_file()}

    def shown(value: str) -> str:
        return "FILE" if str(Path(value)) in files else shared_path(value)

    parts = [argument.rpartition("=") for argument in arguments]
    return " ".join(f"{name}{equals}{shown(value)}" for name, equals, value in parts)


def escape_markdown(text: str) -> str:
    """Return text as a piece of one line of Markdown that shows it as it is."""
    printable = "".join(c if c.isprintable() else " " for c in text)
    return MARKUP.sub(r"\\\g<0>", " ".join(printable.split()))
