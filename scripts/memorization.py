# SPDX-License-Identifier: Apache-2.0
"""Measure what a model has kept of its training text, as `bcmb memorization` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("memorization")
