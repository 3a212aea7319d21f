# SPDX-License-Identifier: Apache-2.0
"""Score a model on a task, as `bcmb evaluate` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("evaluate")
