# SPDX-License-Identifier: Apache-2.0
"""Options of the commands. Nothing here imports what is slow, such as jax: see `commands`."""

import argparse
import difflib
from collections.abc import Sequence
from typing import NoReturn

from bcmb_jax.errors import InputError


class Parser(argparse.ArgumentParser):
    """A parser of `bcmb NAME` that takes no abbreviations, and whose errors are one line.

    Args:
      prog: the command as it is typed.
      others: options that the command reads itself, to be suggested too.
    """

    def __init__(
        self,
        prog: str,
        *,
        description: str | None = None,
        parents: Sequence[argparse.ArgumentParser] = (),
        others: Sequence[str] = (),
    ):
        super().__init__(
            prog,
            description=description,
            parents=parents,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        self._others = others

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def, override]
        """Parse arguments, after a look for options that do not exist.

        `ArgumentParser` would first complain of what is missing because an option is mistyped.
        """
        if not self._subparsers:  # which look themselves
            for argument in args:
                if argument == "--":
                    break
                name = argument.partition("=")[0]
                if name.startswith("--") and name not in self._option_string_actions:
                    self._refuse(name)
        return super().parse_known_args(args, namespace)

    def _refuse(self, name: str) -> NoReturn:
        known = [*self._option_string_actions, *self._others]
        near = difflib.get_close_matches(name, known, n=1)
        self.error(f"there is no option {name}" + (f"; the nearest is {near[0]}" if near else ""))

    def error(self, message: str) -> NoReturn:
        """Raise an `InputError` instead of printing the usage and leaving the process."""
        raise InputError(f"{message} ({self.prog} --help lists the options)")
