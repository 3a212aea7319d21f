# SPDX-License-Identifier: Apache-2.0
"""Count a corpus beside the paper's.

    bcmb ledger shards/* [--output DIR]

Prints a table of the prepared sources; --output also writes it as corpus.md, a plot corpus.png and
a draft of a dataset card, card.md (README.md of a folder on the Hub).
"""

import argparse
from pathlib import Path

from bcmb_jax import private
from bcmb_jax.commands.options import Parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = Parser("bcmb ledger", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, help="written by bcmb prepare")
    parser.add_argument("--output", type=Path, metavar="DIR")
    parser.add_argument("--title", default="Biomedical and clinical text", help="of the card")
    private.add_option(parser)
    options = parser.parse_args(arguments)
    if options.output and options.output.is_file():
        parser.error(f"--output {options.output} is a file: name a folder")
    return options
