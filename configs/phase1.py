# SPDX-License-Identifier: Apache-2.0
"""Phase 1 of the paper: 160.5 B tokens of PubMed, PMC and clinical text, constant learning rate.

python scripts/train.py --config configs/phase1.py:base --workdir runs/phase1 \
    --config.init_from=CHECKPOINT --config.data.train="('shards/pubmed', 'shards/pmc', …)"

`:base` or `:large`. The paper took 8 H100 GPUs about four days (large: eight), with 12 (7) rows a
GPU at once. Sources are mixed as they are; set data.weights for other shares.
"""

from configs import base

RECIPE = {
    "base": dict(learning_rate=3e-4, weight_decay=1e-5, train_rows_per_step=576, seed=17),
    "large": dict(learning_rate=5e-5, weight_decay=1e-6, train_rows_per_step=616, seed=314),
}
ROWS_PER_MICROBATCH = {"base": 12, "large": 7}


def get_config(size: str = "base"):
    config = base.get_config(size)
    config.update(RECIPE[size])
    config.rows_per_microbatch = ROWS_PER_MICROBATCH[size]
    config.max_tokens = 160_453_000_000
    config.mask_rate = 0.30
    config.schedule.name = "constant_with_warmup"
    return config
