# SPDX-License-Identifier: Apache-2.0
"""What a Composer checkpoint says beside its tensors, made for a run of ours (RECIPE §5)."""

import datetime
from collections.abc import Mapping
from typing import Any

from bcmb_jax.config import RunConfig
from bcmb_jax.model.config import ModelConfig
from conversion.flexbert import flexbert_config, flexbert_name
from conversion.mapping import Row, decay_groups

OPTIMIZER = "StableAdamW"
BETAS, EPS = (0.9, 0.98), 1e-6
"""Of our optimizer and of the recipe's."""


def weights_only(config: ModelConfig, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """The rest of a file for Composer's `load_weights_only`."""
    model = {
        "file_extension": ".json",
        "content": flexbert_config(config),
        "class": "src.bert_layers.model.FlexBertForMaskedLM",
    }
    files = {
        name: {"file_extension": ".json", "content": content} for name, content in tokenizer.items()
    }
    integrations = {"huggingface": {"model": {"config": model}, "tokenizer": files}}
    return {"state": {"integrations": integrations, "metadata": {"writer": "bcmb_jax"}}}


def with_counters(
    rest: Mapping[str, Any],
    rows: tuple[Row, ...],
    run: Mapping[str, Any],
    progress: Mapping[str, Any],
) -> dict[str, Any]:
    """`rest` with all that resuming needs: counters, schedule and hyperparameters (`max_lr` and
    `step` of the optimizer's state go over these when it is written).

    Args:
      run: the stored configuration of the run that made the tensors.
      progress: a checkpoint's, as JSON.
    """
    config = RunConfig.from_dict(run)
    base, rate = config.learning_rate, config.learning_rate_after(progress["tokens_seen"])
    groups = [
        {
            "weight_decay": decay,
            "lr": rate,
            "beta1": BETAS[0],
            "beta2": BETAS[1],
            "eps": EPS,
            "decouple_lr": True,
            "max_lr": base,
            "kahan_sum": None,
            "foreach": True,
            "gradient_release": False,
            "setup": True,
            "initial_lr": base,
            "params": [flexbert_name(name) for name in group],
        }
        for group, decay in zip(decay_groups(rows), (0.0, config.weight_decay), strict=True)
    ]
    step = progress["step"]
    scheduler = {
        "base_lrs": [base] * 2,
        "last_epoch": step,
        "verbose": False,
        "_step_count": step + 1,
        "_get_lr_called_within_step": False,
        "_last_lr": [rate] * 2,
        "lr_lambdas": [None] * 2,
    }
    state = {
        "optimizers": {OPTIMIZER: {"param_groups": groups}},
        "schedulers": {"LambdaLR": scheduler},
        "algorithms": [],
        "callbacks": {},
        "scaler": {},
        "timestamp": {"Timestamp": _timestamp(progress)},
        "rank_zero_seed": config.seed,
        "run_name": "bcmb_jax",
        "dataset_state": {"train": None, "eval": {}},
    }
    # No generator states: they would decide dropout alone, and Composer goes on without them.
    return {"state": {**rest["state"], **state}, "rng": []}


def _timestamp(progress: Mapping[str, Any]) -> dict[str, Any]:
    """A sample is a packed row here."""
    seen = {
        "batch": progress["step"],
        "sample": progress["row_id"],
        "token": progress["tokens_seen"],
    }
    clocks = ("total_wct", "iteration_wct", "epoch_wct", "batch_wct")
    return {
        "iteration": 0,
        "epoch": 0,
        **seen,
        "epoch_in_iteration": 0,
        "token_in_iteration": seen["token"],
        **{f"{unit}_in_epoch": count for unit, count in seen.items()},
        **{clock: datetime.timedelta(0) for clock in clocks},
    }


def resumable(groups: list[Mapping[str, Any]], origin: str) -> str | None:
    """Why our optimizer cannot go on from these hyperparameters, or None."""
    wanted = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "decouple_lr": True}
    for group in groups:
        for key, value in wanted.items():
            if group.get(key) != value:
                return f"{origin} was trained with {key} {group.get(key)}; here it is {value}"
    return None
