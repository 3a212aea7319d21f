# SPDX-License-Identifier: Apache-2.0
"""Score a model on a task: the command line is in bcmb_jax/commands/evaluate.py."""

import sys

from bcmb_jax.commands.evaluate import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
