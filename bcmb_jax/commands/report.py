# SPDX-License-Identifier: Apache-2.0
"""Results beside the paper's: python scripts/report.py RESULTS... --output DIR

Takes every results.json of scripts/evaluate.py in the given folders, and writes DIR/tables.md
(the paper's Tables 2, 3, 5 and 6, ours above the published rows), tables.json and plots.
"""

import argparse
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.report import write
from bcmb_jax.evaluation.results import read_results


def main(arguments: list[str] | None = None) -> None:
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
        help="what to call a model (as given to evaluate.py); default: its folder's name",
    )
    options = parser.parse_args(arguments)
    for name in options.names:
        if not all(name.rpartition("=")):
            raise InputError(f"--names {name}: give MODEL=LABEL")
    names = {model: label for model, _, label in (x.rpartition("=") for x in options.names)}
    print("\n".join(map(str, write(read_results(options.results, names), options.output))))
