# SPDX-License-Identifier: Apache-2.0
"""Turn text into token shards, as `bcmb prepare` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("prepare")
