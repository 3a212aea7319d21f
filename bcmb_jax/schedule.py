# SPDX-License-Identifier: Apache-2.0
"""Learning-rate multipliers: pure functions of the tokens seen.

Tokens are Python ints on the host: 160e9 does not fit an int32. Only non-padding tokens count.
"""

import math

# Fidelity: Composer steps its scheduler before it adds the batch's tokens, so upstream's step k
# uses the tokens seen before step k-1 (RECIPE §4). Here step k uses the tokens seen before step k.


def constant_with_warmup(tokens: int, *, warmup_tokens: int = 0) -> float:
    """Rise linearly from 0 over `warmup_tokens`, then stay at 1.

    Phase 1; Composer's schedule of that name.
    """
    return min(1.0, tokens / warmup_tokens) if warmup_tokens else 1.0


def one_minus_sqrt(
    tokens: int, *, max_tokens: int, decay_tokens: int, final: float = 0.001
) -> float:
    """Stay at 1, then fall to `final` over the last `decay_tokens`.

    `final + (1 - final)(1 - √x)` with `x` the share of the decay that is over, never less than
    `final` (phase 2; RECIPE §4).
    """
    start = max_tokens - decay_tokens
    if tokens <= start:
        return 1.0
    return max(final, final + (1 - final) * (1 - math.sqrt((tokens - start) / decay_tokens)))


def warmup_stable_decay(
    tokens: int,
    *,
    max_tokens: int,
    warmup_tokens: int,
    decay_tokens: int,
    final: float = 0.001,
) -> float:
    """Rise linearly from 1e-10, stay at 1, then fall linearly to `final` over `decay_tokens`.

    Never less than 0. For training from scratch (ModernBERT's pretraining schedule).
    """
    if tokens < warmup_tokens:
        return 1e-10 + (1 - 1e-10) * tokens / warmup_tokens
    start = max_tokens - decay_tokens
    if tokens <= start:
        return 1.0
    return max(0.0, 1 - (tokens - start) / decay_tokens * (1 - final))
