# SPDX-License-Identifier: Apache-2.0
"""Train a model: the command line is in bcmb_jax/commands/train.py."""

import sys

from bcmb_jax.commands.train import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
