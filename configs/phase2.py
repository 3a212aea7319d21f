# SPDX-License-Identifier: Apache-2.0
"""Phase 2 of the paper: the decay, on clinical text (or, `bio_`, on biomedical text again).

Command:   bcmb train --config phase2:base \
               --config.init_from=runs/phase1-base \
               --config.data.train="('shards/mimic', 'shards/notes')"
Variants:  `:base`, `:large`: three passes over 2.75 B clinical tokens
           `:bio_base`, `:bio_large`: one pass over 50.7 B biomedical tokens
Hardware:  8 H100 in the paper, as for phase 1
Hours:     part of phase 1's figure in the paper; this code: not measured as a whole. At the
           446,000 tokens/s of one H200 (docs/performance.md), base takes 5.1 hours on that card,
           bio_base 32.
Loss:      not published, not measured

The learning rate falls as 1 - sqrt over the whole phase, for `:large` over its last third.
`init_from` carries phase 1's optimizer moments and step along.
"""

from ml_collections import ConfigDict

from bcmb_jax.configs import phase1


def get_config(variant: str = "base") -> ConfigDict:
    """Return the configuration of `:base`, `:large`, `:bio_base` or `:bio_large`."""
    config = phase1.get_config(variant.removeprefix("bio_"))
    config.mask_rate = 0.15
    config.max_tokens = 50_735_000_000 if variant.startswith("bio_") else 8_247_337_000
    config.schedule.name = "one_minus_sqrt"
    config.schedule.decay_tokens = 2_749_112_000 if variant == "large" else config.max_tokens
    return config
