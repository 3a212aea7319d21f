# SPDX-License-Identifier: Apache-2.0
"""Measure speed on this machine: the command line is in bcmb_jax/commands/benchmark.py."""

import sys

from bcmb_jax.commands.benchmark import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
