# SPDX-License-Identifier: Apache-2.0
"""Fill masks in sentences, as `bcmb fill-mask` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("fill-mask")
