# SPDX-License-Identifier: Apache-2.0
"""Train a model: the command line is in bcmb_jax/commands/train.py."""

import sys

from bcmb_jax.errors import run
from bcmb_jax.signals import stop_signals

if __name__ == "__main__":
    with stop_signals():  # before the imports that take seconds
        from bcmb_jax.commands.train import main

        sys.exit(run(main))
