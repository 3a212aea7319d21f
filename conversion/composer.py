# SPDX-License-Identifier: Apache-2.0
"""Read and write checkpoints of the original training code: Composer's `.pt` (RECIPE §5).

    state.model                          weights, `model.` in front; the tied decoder twice
    state.optimizers.StableAdamW.state   both moments of each tensor, by name or by number
                    ….param_groups       hyperparameters, step, max_lr; group 0 is not decayed
    state.{timestamp, schedulers, …}     counters and the rest
    state.data_agreements                ours, which Composer passes over
    rng                                  a list, one entry a rank

The rest is carried as it is, so that a file that comes back is the one that went in.
"""

import atexit
import logging
import tempfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, SupportsFloat

import numpy as np

from bcmb_jax import agreements
from bcmb_jax.data.tokenize import TOKENIZER_FILES, load_tokenizer
from bcmb_jax.errors import InputError, reason
from bcmb_jax.files import write_json
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.optimizer import StableAdamWState
from conversion import flexbert, torch_files
from conversion.config_json import read_json
from conversion.flexbert import flexbert_name, hf_name
from conversion.mapping import (
    DECODER,
    TOKEN_TABLE,
    Row,
    Weights,
    check_finite,
    decay_groups,
    laid_out_as,
    table,
    to_ours,
    to_stored,
    untied,
)
from conversion.model_card import with_manifest

log = logging.getLogger(__name__)

FILE = "latest-rank0.pt"
MOMENTS = ("exp_avg", "exp_avg_sq")


def read_composer(file: Path, model_config: Path | None = None) -> Weights:
    """Read a `.pt`; tensors stay on disk until they are looked at.

    Args:
      model_config: for a file that does not hold its own config.

    Raises:
      InputError: it is not whole, asks for code, or is not a ModernBERT's.
    """
    tree, origin = torch_files.load(file), str(file)
    with laid_out_as("a Composer checkpoint", file):
        state = tree.get("state") if isinstance(tree, dict) else None
        if not isinstance(state, dict) or not isinstance(state.get("model"), dict):
            raise InputError(f"{origin} is not a Composer checkpoint: it has no state.model")
        stored = untied(_arrays(state.pop("model"), origin), origin)
        hub_files = (state.get("integrations") or {}).get("huggingface") or {}
        own = hub_files.get("model", {}).get("config", {}).get("content")
        config = _config(own, stored, model_config, origin)
        rows = table(config)
        params = to_ours(stored, rows, origin)
        opt_state = _read_optimizer(state.get("optimizers") or {}, rows, origin)
        clock = state.get("timestamp", {}).get("Timestamp", {})
        units = {"step": "batch", "tokens_seen": "token"} if clock else {}
        counters = {name: int(clock[unit]) for name, unit in units.items()}
        parts = hub_files.get("tokenizer", {}).items()
        tokenizer = {n: p["content"] for n, p in parts if p.get("file_extension") == ".json"}
        record = agreements.parse(state.pop(agreements.KEY, []), origin)
        rest = torch_files.to_json(tree)
    place, special = _unpack_tokenizer(tokenizer, origin)
    meta = {"composer": rest} | ({"progress": counters} if counters else {})
    weights = Weights(config, params, special, place, origin, meta=meta, agreements=record)
    return with_manifest(weights._replace(opt_state=opt_state), file.parent)


def write_composer(weights: Weights, file: Path) -> None:
    """Write a `.pt` that the original code resumes from, or, without moments, starts from.

    Raises:
      InputError: nothing says how the moments came about.
    """
    torch_files.require_torch(file)
    rows, opt_state = table(weights.config), weights.opt_state
    tree = torch_files.from_json(weights.meta.get("composer") or _new_rest(weights, rows))
    model = {
        flexbert_name(name): torch_files.tensor(x)
        for name, x in to_stored(weights.params, rows).items()
    }
    model[f"model.{DECODER}"] = model[flexbert_name(TOKEN_TABLE)]
    bias = "model.decoder.bias"
    model[bias] = model.pop(bias)  # after the weight, as PyTorch orders them
    record = {agreements.KEY: agreements.to_json(weights.agreements)}
    tree["state"] = {"model": OrderedDict(model), **tree["state"], **record}
    if opt_state is not None:
        ((_, optimizer),) = tree["state"]["optimizers"].items()
        groups = optimizer.pop("param_groups")
        optimizer["state"] = _optimizer_state(opt_state, groups, rows)
        optimizer["param_groups"] = groups
        for group in groups:
            group["step"] = torch_files.tensor(np.array(opt_state.step, np.int32))
            # float32 in the optimizer's state; the file's own double where that is what it was.
            if np.float32(group["max_lr"]) != opt_state.max_lr:
                group["max_lr"] = float(opt_state.max_lr)
    torch_files.save(tree, file)


def _new_rest(weights: Weights, rows: tuple[Row, ...]) -> dict[str, Any]:
    """Return what a `.pt` holds beside the weights, as JSON, where none was read from one."""
    source = weights.tokenizer
    files = {file.name: read_json(file) for file in sorted(source.glob("*.json"))} if source else {}
    rest = flexbert.weights_only(
        weights.config, {name: content for name, content in files.items() if "token" in name}
    )
    if weights.opt_state is None:
        return rest
    run = weights.meta.get("config", {})
    if "learning_rate" not in run:
        raise InputError(f"{weights.origin} has moments and does not say of which run")
    return flexbert.with_counters(rest, rows, run, weights.meta["progress"])


def _arrays(tensors: Mapping[str, object], origin: str) -> dict[str, np.ndarray]:
    """Return the tensors by our names, none of them lost to a prefix."""
    arrays: dict[str, np.ndarray] = {}
    for name, x in torch_files.arrays(tensors, origin).items():
        if hf_name(name) in arrays:
            raise InputError(f"{origin} holds {hf_name(name)} twice, the second time as {name}")
        arrays[hf_name(name)] = x
    return arrays


def _config(
    own: Mapping[str, Any] | None,
    stored: Mapping[str, np.ndarray],
    model_config: Path | None,
    origin: str,
) -> ModelConfig:
    """Find the sizes in the file itself, else in `model_config`, else in its tensors' shapes."""
    given = flexbert.config_from_file(model_config) if model_config else None
    if own:
        config = flexbert.config_from_flexbert(own, f"the config in {origin}")
        if given not in (None, config):
            raise InputError(f"{model_config} is {given}, and {origin} itself says {config}")
        return config
    if given is not None:
        return given
    config = flexbert.config_from_shapes(stored, origin)
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


def _unpack_tokenizer(
    files: Mapping[str, object], origin: str
) -> tuple[Path | None, dict[str, int | None]]:
    """Write the tokenizer that a `.pt` carries to a folder that lives as long as this process.

    Returns:
      The folder, and the ids of special tokens by role; None and nothing where there is none.
    """
    if "tokenizer.json" not in files:
        log.warning("%s carries no tokenizer; exports of it will have none", origin)
        return None, {}
    place = tempfile.TemporaryDirectory(prefix="tokenizer-")
    atexit.register(place.cleanup)
    for name in TOKENIZER_FILES:
        if name in files:
            write_json(Path(place.name) / name, files[name])
    try:
        return Path(place.name), dict(load_tokenizer(place.name).special.__dict__)
    except Exception as error:  # tokenizers raises plain Exception
        raise InputError(f"the tokenizer in {origin} cannot be read: {reason(error)}") from error


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
    check_finite({"max_lr": np.array(max(rates), np.float32)}, origin)
    negative = [name for name, x in exp_avg_sq.items() if x.min() < 0]
    if negative:
        raise InputError(f"{origin}: exp_avg_sq of {negative[0]} has negative elements")
    step, max_lr = np.int32(steps.pop()), np.float32(rates.pop())
    return StableAdamWState(step, max_lr, exp_avg, exp_avg_sq, clipped_fraction=np.float32(0))


def _expected(part: str, value: SupportsFloat | None, eps: float) -> bool:
    """Return whether `_optimizer_state` writes this part of a tensor's state again as it is."""
    if part == "eps_sq" and value is not None:
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
        numbered = all(isinstance(key, int) for key in keys)
        names = expected if numbered else [hf_name(key) for key in keys]
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
