# SPDX-License-Identifier: Apache-2.0
"""Count a corpus beside the paper's: `python scripts/ledger.py shards/* [--output DIR]`.

Prints a table of the prepared sources; --output also writes it as corpus.md, a plot corpus.png and
a draft of a dataset card, card.md (README.md of a folder on the Hub).
"""

import argparse
from pathlib import Path

from bcmb_jax import private
from bcmb_jax.data.ledger import card, make_figure, read_ledger, table
from bcmb_jax.errors import InputError
from bcmb_jax.files import new_file, write_text


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="written by prepare_data.py")
    parser.add_argument("--output", type=Path, metavar="DIR")
    parser.add_argument("--title", default="Biomedical and clinical text", help="of the card")
    private.add_option(parser)
    options = parser.parse_args()
    if options.output and options.output.is_file():
        raise InputError(f"--output {options.output} is a file: name a folder")
    entries = read_ledger(options.folders)
    text = table(entries)
    print(text)
    if options.output:
        write_text(options.output / "corpus.md", text + "\n")
        write_text(options.output / "card.md", card(entries, options.title))
        with new_file(options.output / "corpus.png") as out:
            make_figure(entries).savefig(out, dpi=150, format="png")
