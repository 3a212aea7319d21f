# SPDX-License-Identifier: Apache-2.0
"""Count a corpus beside the paper's: `python scripts/ledger.py shards/* [--output DIR]`.

Prints a table of the prepared sources; --output also writes it as corpus.md, a plot corpus.png and
a draft of a dataset card, card.md (README.md of a folder on the Hub).
"""

import argparse
from pathlib import Path

from bcmb_jax.data.ledger import card, make_figure, read_ledger, table
from bcmb_jax.errors import InputError


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, help="written by prepare_data.py")
    parser.add_argument("--output", type=Path, metavar="DIR")
    parser.add_argument("--title", default="Biomedical and clinical text", help="of the card")
    options = parser.parse_args()
    if options.output and options.output.is_file():
        raise InputError(f"--output {options.output} is a file: name a folder")
    entries = read_ledger(options.folders)
    text = table(entries)
    print(text)
    if options.output:
        options.output.mkdir(parents=True, exist_ok=True)
        (options.output / "corpus.md").write_text(text + "\n")
        (options.output / "card.md").write_text(card(entries, options.title))
        make_figure(entries).savefig(options.output / "corpus.png", dpi=150)
