# SPDX-License-Identifier: Apache-2.0
"""FlexBERT, the original code's ModernBERT: tensor names, config, state of a run.

`flexbert.json` beside this module lists what its config and a run's state hold: the values that a
ModernBERT `required` has (others, and an absent key, do not exist here), our name of each of its
`sizes`, and what is written, as `torch_files.to_json` encodes it, where most nulls are filled in.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bcmb_jax import files
from bcmb_jax.config import RunConfig
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.model.config import ModelConfig
from conversion.config_json import parse_config
from conversion.mapping import TOKEN_TABLE, Row, decay_groups
from conversion.torch_files import to_json

FILE = files.read_json(Path(__file__).with_name("flexbert.json"))
REQUIRED: dict[str, list[object]] = FILE["required"]
SIZES: dict[str, str] = FILE["sizes"]
SHARED = ("beta1", "beta2", "eps", "decouple_lr")
"""Hyperparameters of a `param_group` that our optimizer has too, and no others."""
MOST_YAML = 2**17  # bytes of a config that is named
HEAD_SIZE = 64  # of every published ModernBERT
OUTER = ("module.", "model.")  # of DistributedDataParallel, of Composer
INNER = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Words that torch.compile, FSDP and activation checkpointing put anywhere into names."""


class _NoAliases(yaml.SafeLoader):  # type: ignore[misc]
    """YAML in which nothing stands for something else: ten such lines can hold 10^10 values."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(problem="an alias", problem_mark=mark)
        return super().compose_node(parent, index)


def hf_name(name: str) -> str:
    """Return our name of a FlexBERT tensor, whatever wrapped the model when it was saved."""
    for word in INNER:
        name = name.replace(word, "")
    for _ in OUTER:  # in either order
        name = name.split(".", 1)[1] if name.startswith(OUTER) else name
    if name.startswith("bert.encoder.layers."):
        return name.replace("bert.encoder.", "model.", 1)
    return name.replace("bert.", "model.", 1) if name.startswith("bert.") else name


def flexbert_name(name: str) -> str:
    """Return the name of one of our tensors in a Composer checkpoint (`model.` in front)."""
    if name.startswith("model.layers."):
        return name.replace("model.", "model.bert.encoder.", 1)
    inner = name.replace("model.", "bert.", 1) if name.startswith("model.") else name
    return f"model.{inner}"


def config_from_flexbert(values: Mapping[str, Any], origin: str) -> ModelConfig:
    """Return the sizes of the model that a FlexBERT config describes.

    Raises:
      InputError: it lacks a size, or has parts that do not exist here.
    """
    for key, allowed in REQUIRED.items():
        if key in values and values[key] not in allowed:
            raise InputError(f"{origin} has {key} {values[key]!r}; only {allowed[0]!r} exists here")
    needed = [key for key in SIZES if key != "attn_out_dropout_prob"]  # a missing one is none
    missing = [key for key in needed if values.get(key) is None]
    if missing:
        raise InputError(f"{origin} does not say {', '.join(missing)}")
    norm = dict(values.get("norm_kwargs") or {})
    if norm.get("bias", False):
        raise InputError(f"{origin} has norms with a bias; none exist here")
    if values["sliding_window"] == -1:
        raise InputError(f"{origin} has no sliding window; every ModernBERT here has one")
    sizes = {ours: values[theirs] for theirs, ours in SIZES.items() if theirs in values}
    if sizes["local_rope_theta"] == -1:  # "as in global layers"
        sizes["local_rope_theta"] = sizes["global_rope_theta"]
    sizes.setdefault("attention_output_dropout", 0.0)
    sizes["hidden_activation"] = values.get("hidden_act", "gelu")
    try:
        return ModelConfig(**sizes, norm_eps=float(norm.get("eps", 1e-5)))
    except InputError as error:
        raise InputError(f"{origin}: {error}") from error


def flexbert_config(config: ModelConfig) -> dict[str, Any]:
    """Return the config from which the original code makes a model; the inverse of the above."""
    return {
        **{key: allowed[0] for key, allowed in REQUIRED.items()},
        **{theirs: getattr(config, ours) for theirs, ours in SIZES.items()},
        "hidden_act": config.hidden_activation,
        "norm_kwargs": {"eps": config.norm_eps, "bias": False},
        **FILE["constant"],
    }


def config_from_file(file: Path) -> ModelConfig:
    """Read `--model-config`: a FlexBERT config, the YAML of a run that holds one, or a config.json.

    Raises:
      InputError: it is none of these.
    """
    if not file.is_file():
        raise InputError(f"model config {file} does not exist")
    if (size := file.stat().st_size) > MOST_YAML:
        raise InputError(f"model config {file} has {size:,} bytes, more than {MOST_YAML:,}")
    text = file.read_text(encoding="utf-8")
    try:
        values = files.parse_json(text)
    except ValueError:
        try:
            values = yaml.load(text, _NoAliases)
        except (yaml.YAMLError, ValueError, RecursionError) as error:  # its text quotes the line
            mark = getattr(error, "problem_mark", None)
            line, column = (mark.line + 1, mark.column + 1) if mark else (1, 0)
            what = (
                "neither JSON nor YAML without aliases from here on: --model-config is a model's "
                "config"
            )
            raise record_error(file, line, what, column=column) from None
    for key in ("model", "model_config"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if not isinstance(values, dict):
        raise InputError(f"model config {file} does not hold keys and values")
    if values.get("model_type") == "modernbert":
        content = parse_config(values, str(file))
        content.check_head("masked_lm")
        return content.config
    return config_from_flexbert(values, str(file))


def config_from_shapes(stored: Mapping[str, np.ndarray], origin: str) -> ModelConfig:
    """Derive sizes from tensors by our names; window, thetas and head size are ModernBERT's.

    Raises:
      InputError: they do not show them.
    """
    layers = {name.split(".")[2] for name in stored if name.startswith("model.layers.")}
    try:
        vocab_size, hidden = stored[TOKEN_TABLE].shape
        _, inner = stored["model.layers.0.mlp.Wo.weight"].shape
    except (KeyError, ValueError):
        raise InputError(f"{origin} does not hold a ModernBERT's tensors") from None
    if hidden % HEAD_SIZE:
        raise InputError(
            f"{origin} does not say how many heads it has, and its hidden size {hidden} is no "
            f"multiple of {HEAD_SIZE}; give --model-config"
        )
    return ModelConfig(vocab_size, hidden, len(layers), hidden // HEAD_SIZE, inner)


def weights_only(config: ModelConfig, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rest, as JSON, of a file that Composer reads with `load_weights_only`."""
    model = {
        "file_extension": ".json",
        "content": flexbert_config(config),
        "class": "src.bert_layers.model.FlexBertForMaskedLM",
    }
    files = {
        name: {"file_extension": ".json", "content": content} for name, content in tokenizer.items()
    }
    integrations = to_json({"huggingface": {"model": {"config": model}, "tokenizer": files}})
    return {"state": {"integrations": integrations, "metadata": {"writer": "bcmb_jax"}}}


def with_counters(
    rest: Mapping[str, Any],
    rows: tuple[Row, ...],
    run: Mapping[str, Any],
    progress: Mapping[str, Any],
) -> dict[str, Any]:
    """Return `rest` with what resuming needs: counters, schedule and hyperparameters.

    When the file is written, `max_lr` and `step` of the optimizer's state replace those given here.

    Args:
      run: the stored configuration of the run that made the tensors.
      progress: a checkpoint's, as JSON.
    """
    config = RunConfig.from_dict(run)
    base, rate = config.learning_rate, config.learning_rate_after(progress["tokens_seen"])
    step = progress["step"]
    groups = [
        {
            **FILE["param_group"],
            "weight_decay": decay,
            "lr": rate,
            "max_lr": base,
            "initial_lr": base,
            "params": [flexbert_name(name) for name in group],
        }
        for group, decay in zip(decay_groups(rows), (0.0, config.weight_decay), strict=True)
    ]
    scheduler = {
        **FILE["scheduler"],
        "base_lrs": [base] * 2,
        "last_epoch": step,
        "_step_count": step + 1,
        "_last_lr": [rate] * 2,
    }
    # Composer's "sample" is a packed row here.
    seen = {"batch": step, "sample": progress["row_id"], "token": progress["tokens_seen"]}
    in_epoch = {f"{unit}_in_epoch": count for unit, count in seen.items()}
    clock = {**FILE["timestamp"], **seen, **in_epoch, "token_in_iteration": seen["token"]}
    state = {
        **FILE["state"],
        "optimizers": {"StableAdamW": {"param_groups": groups}},
        "schedulers": {"LambdaLR": scheduler},
        "timestamp": {"Timestamp": clock},
        "rank_zero_seed": config.seed,
    }
    # No generator states: they would decide dropout alone, and Composer goes on without them.
    return {"state": {**rest["state"], **state}, "rng": []}


def check_resumable(optimizers: Mapping[str, Any], origin: str) -> None:
    """Raise `InputError` where our optimizer cannot continue with a file's hyperparameters."""
    for group in (group for x in optimizers.values() for group in x["param_groups"]):
        for key in SHARED:
            if group.get(key) != (ours := FILE["param_group"][key]):
                raise InputError(
                    f"{origin} was trained with {key} {group.get(key)}; here it is {ours}; convert "
                    "it --to huggingface to start without its moments"
                )
