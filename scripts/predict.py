# SPDX-License-Identifier: Apache-2.0
"""Predict labels or entities of texts, as `bcmb predict` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("predict")
