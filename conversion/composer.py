# SPDX-License-Identifier: Apache-2.0
"""Read and write checkpoints of the original training code: Composer's `.pt` (RECIPE §5).

    state.model                          weights, `model.` in front; the tied decoder twice
    state.optimizers.StableAdamW.state   both moments of each tensor, by name or by number
                    ….param_groups       hyperparameters, step, max_lr; group 0 is not decayed
    state.{timestamp, schedulers, …}     counters and the rest
    rng                                  a list, one entry a rank

The rest is carried as it is, so that a file that comes back is the one that went in.
"""

import logging
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.errors import InputError, reason
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.optimizer import StableAdamWState
from conversion import torch_files
from conversion.flexbert import (
    config_from_file,
    config_from_flexbert,
    config_from_shapes,
    flexbert_name,
    hf_name,
)
from conversion.mapping import (
    DECODER,
    TOKEN_TABLE,
    Row,
    decay_groups,
    table,
    to_ours,
    to_stored,
    untied,
)

log = logging.getLogger(__name__)

FILE = "latest-rank0.pt"
MOMENTS = ("exp_avg", "exp_avg_sq")


class ComposerCheckpoint(NamedTuple):
    """The content of a checkpoint file.

    Attributes:
      opt_state: None in a file of weights alone.
      rest: everything else as JSON (`torch_files.to_json`), without the tensors above.
      progress: `step` (Composer's batch) and `tokens_seen`; empty in a file of weights alone.
      tokenizer: tokenizer files by name, as JSON.
    """

    config: ModelConfig
    params: dict[str, np.ndarray]
    opt_state: StableAdamWState | None
    rest: dict[str, Any]
    progress: Mapping[str, int] = {}
    tokenizer: Mapping[str, Any] = {}


def read_composer(file: Path, model_config: Path | None = None) -> ComposerCheckpoint:
    """Read a `.pt`; tensors stay on disk until they are looked at.

    Args:
      model_config: for a file that does not hold its own config.

    Raises:
      InputError: it is not whole, asks for code, or is not a ModernBERT's.
    """
    tree = torch_files.load(file)
    try:
        return _parse(tree, model_config, str(file))
    except (InputError, MemoryError):
        raise
    except Exception as error:  # any value may stand in any place
        raise InputError(
            f"{file} is not laid out as a Composer checkpoint "
            f"({type(error).__name__}: {reason(error)})"
        ) from error


def _parse(tree: Any, model_config: Path | None, origin: str) -> ComposerCheckpoint:
    state = tree.get("state") if isinstance(tree, dict) else None
    if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
        raise InputError(f"{origin} is not a Composer checkpoint: it has no state.model")
    stored = untied(_arrays(state.pop("model"), origin), origin)
    config = _config(state, stored, model_config, origin)
    rows = table(config)
    params = to_ours(stored, rows, origin)
    opt_state = _read_optimizer(state.get("optimizers") or {}, rows, origin)
    clock = state.get("timestamp", {}).get("Timestamp", {})
    progress = {"step": int(clock["batch"]), "tokens_seen": int(clock["token"])} if clock else {}
    tokenizer = {
        str(name): part["content"]
        for name, part in _huggingface(state).get("tokenizer", {}).items()
        if part.get("file_extension") == ".json"
    }
    return ComposerCheckpoint(
        config, params, opt_state, torch_files.to_json(tree), progress, tokenizer
    )


def write_composer(checkpoint: ComposerCheckpoint, file: Path) -> None:
    """Write a `.pt` that the original code resumes from (or starts from, without moments)."""
    torch_files.require_torch(file)
    tree = torch_files.from_json(checkpoint.rest)
    rows = table(checkpoint.config)
    model = {name: torch_files.tensor(x) for name, x in _stored(checkpoint.params, rows).items()}
    model[f"model.{DECODER}"] = model[flexbert_name(TOKEN_TABLE)]
    bias = "model.decoder.bias"
    model[bias] = model.pop(bias)  # after the weight, as PyTorch orders them
    tree["state"] = {"model": OrderedDict(model), **tree["state"]}
    if checkpoint.opt_state is not None:
        ((_, optimizer),) = tree["state"]["optimizers"].items()
        groups = optimizer.pop("param_groups")
        optimizer["state"] = _optimizer_state(checkpoint.opt_state, groups, rows)
        optimizer["param_groups"] = groups
        for group in groups:
            step = np.array(checkpoint.opt_state.step, np.int32)
            group["step"] = torch_files.tensor(step)
            # float32 in the optimizer's state; the file's own double where that is what it was.
            if np.float32(group["max_lr"]) != checkpoint.opt_state.max_lr:
                group["max_lr"] = float(checkpoint.opt_state.max_lr)
    torch_files.save(tree, file)


def _arrays(tensors: Mapping[str, Any], origin: str) -> dict[str, np.ndarray]:
    """Return the tensors by our names, none of them lost to a prefix."""
    arrays = {}
    for name, tensor in tensors.items():
        if not hasattr(tensor, "numpy"):
            raise InputError(f"{origin}: {name} is {type(tensor).__name__}, not a tensor")
        if hf_name(name) in arrays:
            raise InputError(f"{origin} holds {hf_name(name)} twice, the second time as {name}")
        arrays[hf_name(name)] = torch_files.array(tensor)
    return arrays


def _config(
    state: Mapping[str, Any],
    stored: Mapping[str, np.ndarray],
    model_config: Path | None,
    origin: str,
) -> ModelConfig:
    """Find the sizes in the file itself, else in `model_config`, else in its tensors' shapes."""
    own = _huggingface(state).get("model", {}).get("config", {}).get("content")
    given = config_from_file(model_config) if model_config else None
    if own:
        config = config_from_flexbert(own, f"the config in {origin}")
        if given is not None and given != config:
            raise InputError(f"{model_config} is {given}, and {origin} itself says {config}")
        return config
    if given is not None:
        return given
    config = config_from_shapes({name: x.shape for name, x in stored.items()}, origin)
    log.warning(
        "%s holds no config: sizes are taken from its tensors, %d heads, window %d and RoPE thetas "
        "%g and %g from ModernBERT; --model-config gives others",
        origin,
        config.num_attention_heads,
        config.local_attention,
        config.global_rope_theta,
        config.local_rope_theta,
    )
    return config


def _huggingface(state: Mapping[str, Any]) -> Mapping[str, Any]:
    return (state.get("integrations") or {}).get("huggingface") or {}


def _read_optimizer(
    optimizers: Mapping[str, Any], rows: tuple[Row, ...], origin: str
) -> StableAdamWState | None:
    """Return moments, step and max_lr; removes the moments from `optimizers`."""
    if not optimizers:
        return None
    try:
        ((kind, optimizer),) = optimizers.items()
        groups, by_key = optimizer["param_groups"], optimizer.pop("state")
        named = _named_groups(groups, rows, origin)
        moments = {
            moment: {name: torch_files.array(by_key[key][moment]) for key, name in named}
            for moment in MOMENTS
        }
        extra = [
            f"{part} of {name}"
            for key, name in named
            for part, value in by_key[key].items()
            if not _expected(part, value, groups[0]["eps"])
        ]
        steps = {int(group["step"]) for group in groups}
        rates = {float(group["max_lr"]) for group in groups}
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"{origin}: the state of {list(optimizers)} is not StableAdamW's ({error!r})"
        ) from error
    if len(by_key) != len(rows) or len(steps) != 1 or len(rates) != 1 or min(steps) < 0 or extra:
        raise InputError(
            f"{origin}: {kind} holds {len(by_key)} tensors of {len(rows)}, steps {sorted(steps)}, "
            f"max_lr {sorted(rates)} and {extra[:1] or 'nothing'} beside moments; one step, one "
            "max_lr and float32 training are what exists here"
        )
    exp_avg, exp_avg_sq = (
        to_ours(moments[moment], rows, f"{moment} of {origin}") for moment in MOMENTS
    )
    negative = [name for name, x in exp_avg_sq.items() if x.min() < 0]
    if negative:
        raise InputError(f"{origin}: exp_avg_sq of {negative[0]} has negative elements")
    step, max_lr = np.int32(steps.pop()), np.float32(rates.pop())
    return StableAdamWState(step, max_lr, exp_avg, exp_avg_sq, clipped_fraction=np.float32(0))


def _expected(part: str, value: Any, eps: float) -> bool:
    """Whether `_optimizer_state` writes this part of a tensor's state again as it is."""
    if part == "eps_sq":
        return float(value) == float(np.float32(eps**2))
    return part in MOMENTS or (part == "kahan_comp" and value is None)


def _named_groups(
    groups: list[dict[str, Any]], rows: Iterable[Row], origin: str
) -> list[tuple[str | int, str]]:
    """Return `(key, our name)` of every tensor of the optimizer.

    Keys are names; older PyTorch numbers the tensors, vectors first (group 0 is not decayed), each
    group in the model's order.
    """
    named: list[tuple[str | int, str]] = []
    for group, expected in zip(groups, decay_groups(rows), strict=True):
        keys = group["params"]
        names = (
            expected
            if all(isinstance(key, int) for key in keys)
            else [hf_name(key) for key in keys]
        )
        if sorted(names) != sorted(expected) or len(keys) != len(expected):
            raise InputError(
                f"{origin}: a parameter group holds {len(keys)} tensors, not the {len(expected)} "
                f"of the model that begin with {expected[0]}"
            )
        named += zip(keys, names, strict=True)
    return named


def _optimizer_state(
    opt_state: StableAdamWState, groups: list[dict[str, Any]], rows: tuple[Row, ...]
) -> dict[str | int, Any]:
    moments = {moment: to_stored(getattr(opt_state, moment), rows) for moment in MOMENTS}
    eps = {key: group["eps"] for group in groups for key in group["params"]}
    return {
        key: {
            **{moment: torch_files.tensor(moments[moment][name]) for moment in MOMENTS},
            "eps_sq": torch_files.tensor(np.array(eps[key] ** 2, np.float32)),
            "kahan_comp": None,
        }
        for key, name in _named_groups(groups, rows, "the optimizer")
    }


def _stored(params: Mapping[str, np.ndarray], rows: tuple[Row, ...]) -> dict[str, np.ndarray]:
    return {flexbert_name(name): x for name, x in to_stored(params, rows).items()}
