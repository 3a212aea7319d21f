# SPDX-License-Identifier: Apache-2.0
"""Look over this installation and this machine.

    bcmb doctor

Prints a line for each thing that it looked at: GPU and driver, versions, memory, disk, caches, the
torch extra, and a self-test of numerics and speed that takes half a minute at most. What is wrong
comes with its fix, and makes the exit status 1.
"""

import argparse
from pathlib import Path

from bcmb_jax.commands.options import Parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = Parser("bcmb doctor", description=__doc__)
    parser.add_argument(
        "--workdir", type=Path, default=Path(), metavar="DIR", help="where runs will be written"
    )
    return parser.parse_args(arguments)
