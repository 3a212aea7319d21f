# SPDX-License-Identifier: Apache-2.0
"""Count a corpus beside the paper's: the command line is in bcmb_jax/commands/ledger.py."""

import sys

from bcmb_jax.commands.ledger import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
