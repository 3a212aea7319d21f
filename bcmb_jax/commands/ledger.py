# SPDX-License-Identifier: Apache-2.0
"""Count a corpus beside the paper's."""

import argparse

from bcmb_jax.data.ledger import card, make_figure, read_ledger, table
from bcmb_jax.files import new_file, write_text
from bcmb_jax.terminal import say_next


def main(options: argparse.Namespace) -> None:
    """Print the table, and write it where the options say."""
    entries = read_ledger(options.folders)
    text = table(entries)
    print(text)
    if not options.output:
        say_next("--output DIR writes this, a plot and a draft of a dataset card")
    else:
        write_text(options.output / "corpus.md", text + "\n")
        write_text(options.output / "card.md", card(entries, options.title))
        with new_file(options.output / "corpus.png") as out:
            make_figure(entries).savefig(out, dpi=150, format="png")
        say_next("complete {}, a draft of a dataset card", options.output / "card.md")
