# SPDX-License-Identifier: Apache-2.0
"""Turn text into token shards: the command line is in bcmb_jax/commands/prepare.py."""

import sys

from bcmb_jax.commands.prepare import main
from bcmb_jax.errors import run

if __name__ == "__main__":
    sys.exit(run(main))
