# SPDX-License-Identifier: Apache-2.0
"""Fill masks in texts with a masked language model.

    bcmb fill-mask --model MODEL [--text "... [MASK] ..."] [--top 5]

Without --text, a few sentences for a model of the demo's synthetic notes. --probes FILE scores a
model on lines of a text with one mask, a tab and the word that belongs there: how often it comes
first and among the first --top, and the mean of one over its rank.
"""

import argparse
from pathlib import Path

from bcmb_jax import hub
from bcmb_jax.commands.options import Parser


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments."""
    parser = Parser("bcmb fill-mask", description=__doc__)
    parser.add_argument(
        "--model", required=True, help="folder, workdir, hub:OWNER/NAME or a start by name"
    )
    parser.add_argument("--text", action="append", help="may be given several times")
    parser.add_argument("--probes", type=Path, metavar="FILE", help="texts and their answers")
    parser.add_argument("--top", type=int, default=5, help="predictions for each mask")
    hub.add_options(parser)
    return parser.parse_args(arguments)
