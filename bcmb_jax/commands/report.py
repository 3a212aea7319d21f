# SPDX-License-Identifier: Apache-2.0
"""Write tables and plots of results beside the paper's.

  python scripts/report.py RESULTS... --output DIR

Every results.json of scripts/evaluate.py in the given folders is read. DIR gets tables.md (the
paper's Tables 2, 3, 5 and 6, ours above the published rows), tables.json and plots.
"""

import argparse
from pathlib import Path

from bcmb_jax import private
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.report import write
from bcmb_jax.evaluation.results import read_results


def main(arguments: list[str] | None = None) -> None:
    """Run the command with `arguments`, or with those of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("results", nargs="+", type=Path, help="files, or folders searched for them")
    parser.add_argument("--output", type=Path, required=True, metavar="DIR")
    parser.add_argument(
        "--names",
        nargs="+",
        default=[],
        metavar="MODEL=LABEL",
        help="label of a model (named as for evaluate.py); default: its folder's name",
    )
    private.add_option(parser)
    options = parser.parse_args(arguments)
    for name in options.names:
        if not all(name.rpartition("=")):
            raise InputError(f"--names {name}: give MODEL=LABEL")
    names = {model: label for model, _, label in (x.rpartition("=") for x in options.names)}
    print("\n".join(map(str, write(read_results(options.results, names), options.output))))
