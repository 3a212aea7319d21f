# SPDX-License-Identifier: Apache-2.0
"""Train a model: the command line is in bcmb_jax/commands/train.py."""

from bcmb_jax.errors import run
from bcmb_jax.signals import catch_stop_signals, end_process

if __name__ == "__main__":
    catch_stop_signals()  # before the imports that take seconds
    from bcmb_jax.commands.train import main

    end_process(run(main))
