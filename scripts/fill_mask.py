# SPDX-License-Identifier: Apache-2.0
"""Fill masks in sentences: the command line is in bcmb_jax/commands/fill_mask.py."""

import sys

from bcmb_jax.commands.fill_mask import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
