# SPDX-License-Identifier: Apache-2.0
"""Set results beside the paper's tables: the command line is in bcmb_jax/commands/report.py."""

import sys

from bcmb_jax.commands.report import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
