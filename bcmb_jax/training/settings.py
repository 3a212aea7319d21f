# SPDX-License-Identifier: Apache-2.0
"""What the keys of a run's config mean, and which values are refused."""

import dataclasses
from typing import Any

from jax.sharding import Mesh

from bcmb_jax import schedule
from bcmb_jax.attention import IMPLEMENTATIONS
from bcmb_jax.data.corpus import Corpus
from bcmb_jax.errors import InputError
from bcmb_jax.masking import MaskingRule
from bcmb_jax.sharding import batch_shards


def check_keys(config: Any) -> None:
    """Refuse values that training would only stumble over later.

    Raises:
      InputError: naming the key, its value and what it may be.
    """
    multiplier(config, 0)
    if not 0 < config.mask_rate < 1:
        raise InputError(f"mask_rate {config.mask_rate} is not between 0 and 1")
    if config.attention not in ("", *IMPLEMENTATIONS):
        raise InputError(f"attention {config.attention!r} is not one of {IMPLEMENTATIONS}")
    for key in ("max_tokens", "log_every", "keep_checkpoints", "eval_tokens"):
        if config[key] < 1:
            raise InputError(f"{key} is {config[key]}; it must be at least 1")


def multiplier(config: Any, tokens: int) -> float:
    """What the learning rate is multiplied with after `tokens` tokens."""
    lengths = dict(config.schedule, max_tokens=config.max_tokens)
    match lengths.pop("name"):
        case "constant_with_warmup":
            return schedule.constant_with_warmup(tokens, warmup_tokens=lengths["warmup_tokens"])
        case "one_minus_sqrt":
            del lengths["warmup_tokens"]
            return schedule.one_minus_sqrt(tokens, **lengths)
        case "warmup_stable_decay":
            return schedule.warmup_stable_decay(tokens, **lengths)
    raise InputError(
        f"schedule.name {config.schedule.name!r} is not one of constant_with_warmup, "
        "one_minus_sqrt, warmup_stable_decay"
    )


def masking_rule(config: Any, corpus: Corpus) -> MaskingRule:
    """How training masks, with the tokenizer's own ids."""
    special = corpus.tokenizer.special
    return MaskingRule(
        rate=config.mask_rate,
        mask_token=special.mask,
        special_tokens=dataclasses.astuple(special),
        random_tokens=corpus.tokenizer.ordinary_ids,
    )


def count_microbatches(config: Any, mesh: Mesh) -> int:
    """How many forward and backward passes make a step.

    Raises:
      InputError: the rows do not divide over the devices, or over the microbatches.
    """
    rows, shards = config.train_rows_per_step, batch_shards(mesh)
    if rows < 1 or rows % shards:
        raise InputError(
            f"train_rows_per_step {rows} does not divide over {shards} devices (mesh.data x "
            f"mesh.fsdp); the next that does is {max(1, -(-rows // shards)) * shards}"
        )
    each = rows // shards
    at_once = min(config.rows_per_microbatch or each, each)
    if at_once < 1 or each % at_once:
        raise InputError(
            f"rows_per_microbatch {at_once} does not divide the {each} rows that each of {shards} "
            f"devices has of train_rows_per_step {rows}"
        )
    return each // at_once
