# SPDX-License-Identifier: Apache-2.0
"""Count a corpus beside the paper's, as `bcmb ledger` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("ledger")
