# SPDX-License-Identifier: Apache-2.0
"""Measure what a masked language model has kept of its training text.

    bcmb prepare … --canaries 20 --output SHARDS
    bcmb train … --workdir RUN
    bcmb memorization --model RUN --data SHARDS --output DIR

Ranks planted canaries among alternatives, recovers masked names and numbers of training and
held-out notes, and compares the losses of both. Writes DIR/memorization.md, a page for the owner of
the data, its numbers as memorization.json, and a plot. No text of notes is in them.
"""

import argparse
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser
from bcmb_jax.commands.options.evaluate import PRECISIONS

MOST_ALTERNATIVES = 10_000


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = Parser("bcmb memorization", description=__doc__)
    add = parser.add_argument
    add("--model", required=True, help="a run, a checkpoint, a folder or hub:OWNER/NAME")
    add("--data", required=True, type=Path, help="folder of prepare_data.py that it was trained on")
    add("--output", required=True, type=Path)
    add(
        "--alternatives",
        type=int,
        default=199,
        help="numbers beside each canary's own; the time grows with them",
    )
    add("--documents", type=int, default=200, help="notes of each split to compare")
    add("--row-length", type=int, default=512, help="longer notes are cut")
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")
    hub.add_options(parser)
    private.add_option(parser)
    options = parser.parse_args(arguments)
    if not 99 <= options.alternatives <= MOST_ALTERNATIVES:
        parser.error(f"--alternatives goes from 99 to {MOST_ALTERNATIVES:,}")
    if options.documents < 1 or options.row_length < 64:
        parser.error("--documents begins at 1, --row-length at 64")
    return options
