# SPDX-License-Identifier: Apache-2.0
"""Phase 2 of the paper: the decay, on clinical text (or, `bio_`, on biomedical text again).

python scripts/train.py --config configs/phase2.py:base --workdir runs/phase2 \
    --config.init_from=runs/phase1 --config.data.train="('shards/mimic', …)"

`:base`, `:large`: three passes over 2.75 B clinical tokens. `:bio_base`, `:bio_large`: one pass
over 50.7 B biomedical tokens. The learning rate falls as 1 - sqrt over the whole phase, for
`:large` over its last third. `init_from` carries phase 1's optimizer moments and step along.
"""

from configs import phase1


def get_config(variant: str = "base"):
    config = phase1.get_config(variant.removeprefix("bio_"))
    config.mask_rate = 0.15
    config.max_tokens = 50_735_000_000 if variant.startswith("bio_") else 8_247_337_000
    config.schedule.name = "one_minus_sqrt"
    config.schedule.decay_tokens = 2_749_112_000 if variant == "large" else config.max_tokens
    return config
