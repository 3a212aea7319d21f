# SPDX-License-Identifier: Apache-2.0
"""Turn texts into vectors, as `bcmb encode` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("encode")
