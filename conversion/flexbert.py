# SPDX-License-Identifier: Apache-2.0
"""FlexBERT, the original code's ModernBERT: tensor names, config, state of a run."""

import datetime
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bcmb_jax.config import RunConfig
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from conversion.config_json import parse_config
from conversion.mapping import Row, decay_groups

# What FlexBERT can be and ModernBERT is not (RECIPE §1); absent keys have these values or do not
# matter.
REQUIRED: dict[str, tuple[Any, ...]] = {
    "attention_layer": ("rope",),
    "bert_layer": ("prenorm",),
    "embedding_layer": ("sans_pos",),
    "mlp_layer": ("glu",),
    "normalization": ("layernorm", "triton_layernorm"),
    "embed_norm": (True,),
    "final_norm": (True,),
    "skip_first_prenorm": (True,),
    "attn_qkv_bias": (False,),
    "attn_out_bias": (False,),
    "mlp_in_bias": (False,),
    "mlp_out_bias": (False,),
    "decoder_bias": (True,),
    "hidden_act": ("gelu",),
    "head_pred_act": ("gelu",),
    "head_pred_bias": (False,),
    "head_pred_norm": (True,),
    "rotary_emb_interleaved": (False,),
    "rotary_emb_scale_base": (None,),
}
FIELDS = {
    "vocab_size": "vocab_size",
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "intermediate_size": "intermediate_size",
    "sliding_window": "local_attention",
    "global_attn_every_n_layers": "global_attn_every_n_layers",
    "rotary_emb_base": "global_rope_theta",
    "local_attn_rotary_emb_base": "local_rope_theta",
    "attn_out_dropout_prob": "attention_output_dropout",
}
"""Our name of a size by FlexBERT's."""
NEEDED = list(FIELDS)[:9]  # a missing dropout is no dropout

OPTIMIZER = "StableAdamW"
BETAS, EPS = (0.9, 0.98), 1e-6  # of our optimizer and of the recipe's

HEAD_SIZE = 64  # of every published ModernBERT
OUTER = ("module.", "model.")  # of DistributedDataParallel, of Composer


def hf_name(name: str) -> str:
    """Return our name of a FlexBERT tensor, whatever wrapped the model when it was saved."""
    for _ in OUTER:  # in either order
        name = name.split(".", 1)[1] if name.startswith(OUTER) else name
    if name.startswith("bert.encoder.layers."):
        return name.replace("bert.encoder.", "model.", 1)
    return name.replace("bert.", "model.", 1) if name.startswith("bert.") else name


def flexbert_name(name: str) -> str:
    """Return the name of one of our tensors in a Composer checkpoint (`model.` in front)."""
    if name.startswith("model.layers."):
        return name.replace("model.", "model.bert.encoder.", 1)
    return (
        name.replace("model.", "model.bert.", 1) if name.startswith("model.") else f"model.{name}"
    )


def config_from_flexbert(values: Mapping[str, Any], origin: str) -> ModelConfig:
    """Return the sizes of the model that a FlexBERT config describes.

    Raises:
      InputError: it lacks a size, or has parts that do not exist here.
    """
    for key, allowed in REQUIRED.items():
        if key in values and values[key] not in allowed:
            raise InputError(f"{origin} has {key} {values[key]!r}; only {allowed[0]!r} exists here")
    missing = [key for key in NEEDED if values.get(key) is None]
    if missing:
        raise InputError(f"{origin} does not say {', '.join(missing)}")
    norm = dict(values.get("norm_kwargs") or {})
    if norm.get("bias", False):
        raise InputError(f"{origin} has norms with a bias; none exist here")
    sizes = {ours: values[theirs] for theirs, ours in FIELDS.items() if theirs in values}
    if values["sliding_window"] == -1:
        raise InputError(f"{origin} has no sliding window; every ModernBERT here has one")
    if values["local_attn_rotary_emb_base"] == -1:  # "as in global layers"
        sizes["local_rope_theta"] = sizes["global_rope_theta"]
    sizes.setdefault("attention_output_dropout", 0.0)
    return ModelConfig(**sizes, norm_eps=float(norm.get("eps", 1e-5)))


def flexbert_config(config: ModelConfig) -> dict[str, Any]:
    """Return the config from which the original code makes a model; the inverse of the above."""
    sizes = {theirs: getattr(config, ours) for theirs, ours in FIELDS.items()}
    return {
        **{key: allowed[0] for key, allowed in REQUIRED.items()},
        **sizes,
        "norm_kwargs": {"eps": config.norm_eps, "bias": False},
        "model_type": "bert",
        "init_method": "full_megatron",
        "attention_probs_dropout_prob": 0.0,
        "embed_dropout_prob": 0.0,
        "mlp_dropout_prob": 0.0,
        "loss_function": "fa_cross_entropy",
        "loss_kwargs": {"reduction": "mean"},
        "padding": "unpadded",
        "unpad_embeddings": True,
        "masked_prediction": True,
        "rotary_emb_dim": None,
        "local_attn_rotary_emb_dim": None,
        "allow_embedding_resizing": True,
        "compile_model": False,
        "pad_token_id": 0,
    }


def config_from_file(file: Path) -> ModelConfig:
    """Read `--model-config`: a FlexBERT config, the YAML of a run that holds one, or a config.json.

    Raises:
      InputError: it is none of these.
    """
    if not file.is_file():
        raise InputError(f"model config {file} does not exist")
    text = file.read_text(encoding="utf-8")
    try:
        values = json.loads(text)
    except ValueError:
        try:
            values = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise InputError(f"model config {file} is neither JSON nor YAML: {error}") from error
    for key in ("model", "model_config"):
        if isinstance(values, dict) and isinstance(values.get(key), dict):
            values = values[key]
    if not isinstance(values, dict):
        raise InputError(f"model config {file} does not hold keys and values")
    if values.get("model_type") == "modernbert":
        return parse_config(values, str(file)).config
    return config_from_flexbert(values, str(file))


def config_from_shapes(shapes: Mapping[str, tuple[int, ...]], origin: str) -> ModelConfig:
    """Derive sizes from tensor shapes by our names; window, thetas and head size are ModernBERT's.

    Raises:
      InputError: they do not show them.
    """
    layers = {int(name.split(".")[2]) for name in shapes if name.startswith("model.layers.")}
    try:
        vocab_size, hidden = shapes["model.embeddings.tok_embeddings.weight"]
        _, inner = shapes["model.layers.0.mlp.Wo.weight"]
    except (KeyError, ValueError):
        raise InputError(f"{origin} does not hold a ModernBERT's tensors") from None
    if hidden % HEAD_SIZE:
        raise InputError(
            f"{origin} does not say how many heads it has, and its hidden size {hidden} is no "
            f"multiple of {HEAD_SIZE}; give --model-config"
        )
    return ModelConfig(
        vocab_size=vocab_size,
        hidden_size=hidden,
        num_hidden_layers=len(layers),
        num_attention_heads=hidden // HEAD_SIZE,
        intermediate_size=inner,
    )


def weights_only(config: ModelConfig, tokenizer: Mapping[str, Any]) -> dict[str, Any]:
    """Return the rest of a file that Composer reads with `load_weights_only`."""
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
    """Return `rest` with what resuming needs: counters, schedule and hyperparameters.

    When the file is written, `max_lr` and `step` of the optimizer's state replace those given here.

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
    """Return Composer's counters; its "sample" is a packed row here."""
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
    """Return why our optimizer cannot continue with these hyperparameters, or None."""
    wanted = {"beta1": BETAS[0], "beta2": BETAS[1], "eps": EPS, "decouple_lr": True}
    for group in groups:
        for key, value in wanted.items():
            if group.get(key) != value:
                return f"{origin} was trained with {key} {group.get(key)}; here it is {value}"
    return None
