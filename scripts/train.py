# SPDX-License-Identifier: Apache-2.0
"""Train a model, as `bcmb train` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("train")
