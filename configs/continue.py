# SPDX-License-Identifier: Apache-2.0
"""Your own notes: continue from a trained model on one folder of shards, whatever its size.

Command:   bcmb train --config continue:shards/notes --workdir runs/notes \
               --config.init_from=CHECKPOINT    (any ModernBERT, which gives the sizes)
Hardware:  one GPU; `--plan` forecasts 8 GB for base at one row a pass
Hours:     0.6 for a billion tokens trained, at the 446,000 tokens/s of one H200
           (docs/performance.md); other cards: not measured
Loss:      depends on the notes; the unigram baseline is printed beside it

The lengths follow from the size of the folder: three passes (the paper's phase 2), steps of 8 to
576 rows such that there are about 500 of them (fewer below 11 M tokens), and the 1 - sqrt decay
over all of it. `--plan` prints what that means before anything runs.
"""

import json
from pathlib import Path

from ml_collections import ConfigDict

from bcmb_jax.configs import base

PASSES = 3
WANTED_STEPS = 500
ROW_LENGTH = 8192
MOST_ROWS_PER_STEP = 576  # the paper's


def get_config(shards: str = "") -> ConfigDict:
    """Return the configuration for `:FOLDER`, an output of `bcmb prepare`."""
    config = base.get_config()
    if not shards:
        raise ValueError("name the folder of shards: --config configs/continue.py:FOLDER")
    tokens = _tokens(Path(shards))
    config.data.train = (shards,)
    config.data.row_length = ROW_LENGTH
    config.max_tokens = PASSES * tokens
    rows = PASSES * tokens // (WANTED_STEPS * ROW_LENGTH)
    config.train_rows_per_step = max(8, min(MOST_ROWS_PER_STEP, rows // 8 * 8))
    config.rows_per_microbatch = 1
    config.mask_rate = 0.15
    config.schedule.name = "one_minus_sqrt"
    config.schedule.decay_tokens = config.max_tokens
    config.eval_every = 50
    config.save_every = 50
    return config


def _tokens(shards: Path) -> int:
    index = shards / "train" / "index.json"
    if not index.is_file():
        raise ValueError(f"{index} does not exist: make {shards} with bcmb prepare")
    return json.loads(index.read_text())["tokens_with_special"]
