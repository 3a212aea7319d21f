# SPDX-License-Identifier: Apache-2.0
"""Write tables and plots of results beside the paper's.

    bcmb report RESULTS... --output DIR

Every results.json of bcmb evaluate in the given folders is read. DIR gets tables.md (the paper's
Tables 2, 3, 5 and 6, ours above the published rows), tables.json and plots.
"""

import argparse
from pathlib import Path

from bcmb_jax import private
from bcmb_jax.commands.options import Parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments; `names` is a dict of labels by model."""
    parser = Parser("bcmb report", description=__doc__)
    parser.add_argument("results", nargs="+", type=Path, help="files, or folders searched for them")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="MODEL=LABEL",
        help="label of a model (named as for evaluate); default: its folder's name",
    )
    private.add_option(parser)
    options = parser.parse_args(arguments)
    for name in options.names:
        if not all(name.rpartition("=")):
            parser.error(f"--names {name}: give MODEL=LABEL")
    options.names = {model: label for model, _, label in (x.rpartition("=") for x in options.names)}
    return options
