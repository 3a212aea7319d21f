# SPDX-License-Identifier: Apache-2.0
"""Set results beside the paper's tables, as `bcmb report` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("report")
