# SPDX-License-Identifier: Apache-2.0
"""Phase 1 of the paper: 160.5 B tokens of PubMed, PMC and clinical text, constant learning rate.

Command:   bcmb train --config phase1:base \
               --config.init_from=modernbert-base:stable --online \
               --config.data.train="('shards/pubmed', 'shards/pmc', 'shards/mimic')"
Variants:  `:base`, `:large` (starts from modernbert-large:stable)
Hardware:  8 H100 in the paper, with 12 (large: 7) rows a GPU at once
Hours:     about 96 in the paper (large: 192) for both phases; this code: not measured as a whole.
           One H200 trained base at 446,000 tokens/s (docs/performance.md): 100 hours on that card.
Loss:      not published, not measured

The run is in runs/phase1-base unless --workdir names another folder.
Sources are mixed as they are; set data.weights for other shares.
"""

from ml_collections import ConfigDict

from bcmb_jax.configs import base

RECIPE = {
    "base": dict(learning_rate=3e-4, weight_decay=1e-5, train_rows_per_step=576, seed=17),
    "large": dict(learning_rate=5e-5, weight_decay=1e-6, train_rows_per_step=616, seed=314),
}
ROWS_PER_MICROBATCH = {"base": 12, "large": 7}


def get_config(size: str = "base") -> ConfigDict:
    """Return the configuration of `:base` or `:large`."""
    config = base.get_config(size)
    config.update(RECIPE[size])
    config.rows_per_microbatch = ROWS_PER_MICROBATCH[size]
    config.max_tokens = 160_453_000_000
    config.mask_rate = 0.30
    config.schedule.name = "constant_with_warmup"
    return config
