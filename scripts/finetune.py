# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on your own data, as `bcmb finetune` does."""

from bcmb_jax.commands import start

if __name__ == "__main__":
    start("finetune")
