# SPDX-License-Identifier: Apache-2.0
"""Turn the texts of a table or a folder into vectors.

  bcmb encode --model MODEL --input notes.csv --text-column note --output vectors.npy

FILE.npy has a vector a row, in the order of the input, float32; rows without a text are NaN. It is
read without loading it by numpy.load(FILE, mmap_mode="r"), and a command that was stopped goes on
where it was. FILE.parquet has the number of the row, on request its id, and the vector.
"""

import argparse
from pathlib import Path

from bcmb_jax import private
from bcmb_jax.commands.options import Parser
from bcmb_jax.commands.options.predict import add_input, check_input

POOLINGS = ("mean", "cls")
SUFFIXES = (".npy", ".parquet")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and check that they fit each other."""
    parser = Parser("bcmb encode", description=__doc__)
    add_input(parser)
    add = parser.add_argument
    add("--output", required=True, type=Path, help="a new FILE.npy or FILE.parquet")
    add("--pooling", choices=POOLINGS, default="mean", help="of all tokens, or the first one's")
    add("--normalize", action="store_true", help="make each vector's length 1")
    private.add_option(parser)
    options = parser.parse_args(arguments)
    suffix = options.output.suffix.lower()
    if suffix not in SUFFIXES:
        parser.error(f"--output {options.output} ends in none of {' '.join(SUFFIXES)}")
    if options.id_column and suffix == ".npy":
        parser.error("--id-column is for FILE.parquet: an array holds vectors alone, row by row")
    check_input(parser, options)
    return options
