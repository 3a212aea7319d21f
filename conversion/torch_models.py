# SPDX-License-Identifier: Apache-2.0
"""PyTorch models of transformers: loaded by name, or built from our weights.

PyTorch is an extra, so that it is imported inside functions; `import_torch` says how to install it.
"""

import importlib
import importlib.util
import zipfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from bcmb_jax.errors import InputError, reason
from bcmb_jax.hub import locate
from bcmb_jax.model.config import ModelConfig, check_sizes
from bcmb_jax.model.heads import Head
from conversion import torch_files
from conversion.config_json import ARCHITECTURES, config_json, read_json
from conversion.huggingface import name_tensors
from conversion.mapping import check_finite

if TYPE_CHECKING:
    import transformers

AUTO_CLASSES = {
    "encoder": "AutoModel",
    "masked_lm": "AutoModelForMaskedLM",
    "sequence_classification": "AutoModelForSequenceClassification",
    "token_classification": "AutoModelForTokenClassification",
}
"""The class of transformers that loads any architecture, by the kind of head."""
LOCAL = {"local_files_only": True, "trust_remote_code": False}
"""How transformers reads a folder: without the network, and without code that lies in it."""


def is_installed() -> bool:
    """Return whether PyTorch and transformers are installed; neither is imported."""
    return all(map(importlib.util.find_spec, ("torch", "transformers")))


def import_torch(user: str = "this") -> ModuleType:
    """Import and return `torch`.

    Args:
      user: the option or file that needs PyTorch, for the message.

    Raises:
      InputError: PyTorch is not installed.
    """
    torch_files.require_torch(user)
    return importlib.import_module("torch")


def be_quiet() -> None:
    """Keep transformers' own progress and advice from the screen."""
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def device() -> str:
    """Return the device that models run on: "cuda" where there is a GPU, else "cpu"."""
    return "cuda" if import_torch().cuda.is_available() else "cpu"


def describe_gpu() -> dict[str, Any]:
    """Return platform, kind and number of the GPUs in use, for reports; empty on a CPU."""
    if device() == "cpu":
        return {}
    return {"platform": "gpu", "kind": import_torch().cuda.get_device_name(), "count": 1}


def load_model(name: str | Path, kind: str, **config: object) -> "transformers.PreTrainedModel":
    """Load any encoder of transformers (BERT, RoBERTa, BigBird, …) in float32.

    Args:
      name: one that `hub.locate` knows.
      kind: the head, a key of `AUTO_CLASSES`; a classifier that the source lacks is random.
      config: values that replace those of the model's config.

    Raises:
      InputError: PyTorch is missing, or transformers cannot load the model.
      NumericsError: its weights hold NaN or infinity.
    """
    import_torch()
    import transformers

    folder = locate(name)
    make = getattr(transformers, AUTO_CLASSES[kind])
    check_sizes(read_json(folder / "config.json"), f"{name}: ")
    for file in filter(zipfile.is_zipfile, folder.glob("pytorch_model*.bin")):
        torch_files.load(file)  # transformers allows more in it; older files are not archives
    try:
        model: transformers.PreTrainedModel = make.from_pretrained(folder, **LOCAL, **config)
        model = model.float()
    except Exception as error:  # a file may hold anything
        raise InputError(f"transformers cannot load {name}: {reason(error)}") from error
    check_finite({n: x.numpy() for n, x in model.state_dict().items()}, str(name))
    return model


def build_modernbert(
    config: ModelConfig,
    head: Head,
    params: Mapping[str, np.ndarray] | None = None,
    *,
    attention: str | None = None,
    **values: object,
) -> "transformers.PreTrainedModel":
    """Build transformers' ModernBERT in float32, without dropout.

    Args:
      params: our parameters by checkpoint name; None draws random ones.
      attention: the attention implementation of transformers; None chooses.
      values: keys of transformers' config beyond the model's sizes.

    Raises:
      InputError: transformers' model does not have the tensors of `params`.
    """
    import_torch()
    import transformers

    make = getattr(transformers, ARCHITECTURES[head.kind])
    torch_config = transformers.ModernBertConfig(**config_json(config, {}, head), **values)
    if attention is not None:
        torch_config._attn_implementation = attention
    if params is None:
        return make(torch_config)
    tensors = name_tensors(params, config, head)
    # Given the tensors, transformers draws no random ones, which would take longer than all else.
    model, loading = make.from_pretrained(
        None,
        **LOCAL,
        config=torch_config,
        state_dict={name: torch_files.tensor(x) for name, x in tensors.items()},
        output_loading_info=True,
    )
    problems = [name for key in ("missing_keys", "unexpected_keys") for name in loading[key]]
    if problems:
        raise InputError(f"transformers' model and ours do not both have {sorted(problems)[0]}")
    return model


def max_length(name: str) -> int:
    """Return the number of tokens that a model reads, special tokens included.

    Raises:
      InputError: there is no config that transformers reads.
    """
    import_torch()
    import transformers

    folder = locate(name)
    try:
        config = transformers.AutoConfig.from_pretrained(folder, **LOCAL)
        positions = int(config.max_position_embeddings)
    except Exception as error:  # as in `load_model`; or the config is not an encoder's
        raise InputError(f"{name} has no config of an encoder: {reason(error)}") from error
    # RoBERTa and its descendants (Longformer) number positions from the padding id + 1 on.
    shifted = config.model_type in ("roberta", "longformer", "xlm-roberta", "camembert")
    return positions - (config.pad_token_id + 1) if shifted else positions


def run_model(
    model: "transformers.PreTrainedModel", arrays: Mapping[str, np.ndarray]
) -> "transformers.utils.ModelOutput":
    """Run a model on integer arrays by input name, and return transformers' output object."""
    torch = import_torch()
    if hasattr(model.base_model, "set_attention_type"):
        # After one short batch BigBird would attend fully in all later ones.
        model.base_model.set_attention_type(model.config.attention_type)
    inputs = {n: torch.from_numpy(x.astype(np.int64)).to(device()) for n, x in arrays.items()}
    return model(**inputs)
