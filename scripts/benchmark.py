# SPDX-License-Identifier: Apache-2.0
"""Measure speed on this machine, as `bcmb benchmark` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("benchmark")
