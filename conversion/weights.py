# SPDX-License-Identifier: Apache-2.0
"""Weights of a model in host memory, read from any place that this package knows."""

import atexit
import hashlib
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx

from bcmb_jax.data.hub import single_file
from bcmb_jax.data.tokenize import TOKENIZER_FILES, load_tokenizer
from bcmb_jax.errors import InputError, reason
from bcmb_jax.files import write_json
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import init_parameters
from bcmb_jax.optimizer import StableAdamWState
from bcmb_jax.training import checkpoint
from conversion import composer, huggingface
from conversion.config_json import default_labels, read_json
from conversion.mapping import MASKED_LM, check_complete, check_finite, table

log = logging.getLogger(__name__)


class Start(NamedTuple):
    """A Composer checkpoint on the Hugging Face hub."""

    hub_id: str
    file: str


# The last of the stable phase, before the learning rate decays (the recipe's `load_path`).
STARTS = {
    "modernbert-base:stable": Start(
        "answerdotai/ModernBERT-base-training-checkpoints",
        "context-extension/ep0-ba52988-rank0.pt",
    ),
    "modernbert-large:stable": Start(
        "answerdotai/ModernBERT-large-training-checkpoints",
        "context-extension/ep0-ba49552-rank0.pt",
    ),
}


class Weights(NamedTuple):
    """A model as host arrays by checkpoint name, float32.

    Attributes:
      origin: where it was read from, for messages and manifests.
      folder: the Hugging Face folder it was read from, which transformers can read too.
      token_ids: of special tokens by role (cls, sep, pad, …), as far as they are known.
      tokenizer: the folder of its tokenizer, if it has one.
      dtype: of the stored tensors, whose values these are; written again as that.
      opt_state: the optimizer's state, in checkpoints from training.
      meta: what else a checkpoint says (JSON): `progress`, `config` of its run, `data` it has
        seen, and the rest of a `composer` file.
    """

    config: ModelConfig
    params: dict[str, np.ndarray]
    token_ids: dict[str, int | None]
    tokenizer: Path | None = None
    origin: str = ""
    head: Head = MASKED_LM
    dtype: str = "float32"
    opt_state: StableAdamWState | None = None
    meta: Mapping[str, Any] = {}
    folder: Path | None = None


def weights_fingerprint(params: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 of tensors and their names, in the order of `params`."""
    digest = hashlib.sha256()
    for name, x in params.items():
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(x).data)
    return digest.hexdigest()


def read(path_or_id: str | Path, *, model_config: Path | None = None) -> Weights:
    """Read weights from any place and format.

    These are a Hugging Face folder or hub id, a checkpoint or workdir of ours, a Composer `.pt` (or
    a folder with one), or a named starting point (`STARTS`).

    Args:
      model_config: the sizes in a `.pt` that does not hold them.

    Raises:
      InputError: there is nothing of the kind, or not a whole ModernBERT.
    """
    if str(path_or_id) in STARTS:
        path = fetch_start(str(path_or_id))
    else:
        path = Path(path_or_id).expanduser()
    if path.is_file() and path.suffix != ".pt":
        raise InputError(f"{path} is a file; give the folder it is in, or a Composer .pt")
    if path.suffix == ".pt" and not path.is_dir():
        return _read_composer(path, model_config)
    if path.is_dir() and not (path / "config.json").is_file() and list(path.glob("*.pt")):
        files = sorted(path.glob("*.pt"))
        if len(files) > 1:
            raise InputError(f"{path} holds {len(files)} .pt files; name one, such as {files[-1]}")
        return _read_composer(files[0], model_config)
    if model_config is not None:
        raise InputError(f"--model-config is for a Composer .pt; {path} holds its own config")
    if not path.is_dir():
        folder = huggingface.snapshot(str(path_or_id))
        return _read_huggingface(folder)._replace(origin=str(path_or_id))
    ours = path.name == "checkpoints" or any(
        (path / name).is_dir() for name in ("meta", "checkpoints")
    )
    return (_read_ours if ours else _read_huggingface)(path)


def fetch_start(name: str) -> Path:
    """Return the file of a starting point, from the local cache or fetched into it.

    Raises:
      InputError: it is not in the cache and there is no network; says how to bring it.
    """
    start = STARTS[name]
    return single_file(start.hub_id, start.file)


def with_head(weights: Weights, kind: str, num_labels: int | None = None) -> Weights:
    """Put another head on an encoder: tensors that both heads have are kept, a classifier is new.

    Raises:
      InputError: there is no such head, or it cannot be made of these weights.
    """
    old = weights.head
    if kind == old.kind and num_labels in (None, len(old.labels)):
        return weights
    labels = default_labels(num_labels or 0)
    if kind == old.kind:
        raise InputError(
            f"{weights.origin} has {len(old.labels)} labels, not {num_labels}; leave num_labels "
            "out, or take a model without a classifier"
        )
    if kind.endswith("_classification") and not labels:
        raise InputError(f"{weights.origin} has no {kind} head; give num_labels for a new one")
    if kind == "masked_lm":
        raise InputError(
            f"{weights.origin} has no masked-LM head (decoder.bias), only {old.kind}; take the "
            "model it was made from"
        )
    head = Head(kind, labels, old.pooling)

    def make() -> nnx.Module:
        return MODELS[kind](weights.config, head, rngs=nnx.Rngs(0))

    def missing() -> dict[str, jax.Array]:
        fresh = init_parameters(make)
        return {n: fresh[n] for n in fresh if n not in weights.params or "classifier." in n}

    new = jax.device_get(jax.jit(missing)())
    if new:
        log.warning("%s: new, not trained yet: %s", weights.origin, ", ".join(sorted(new)))
    kept = weights.params | new
    params = {row.name: kept[row.name] for row in table(weights.config, head)}
    return weights._replace(params=params, head=head, opt_state=None)


def _read_huggingface(folder: Path) -> Weights:
    try:
        stored, content = huggingface.read_folder(folder)
    except (InputError, MemoryError):
        raise
    except Exception as error:  # any value may stand in any place
        raise InputError(
            f"{folder} is not laid out as a model's folder "
            f"({type(error).__name__}: {reason(error)})"
        ) from error
    has_tokenizer = (folder / "tokenizer.json").is_file()
    return Weights(
        content.config,
        stored.params,
        content.token_ids,
        folder if has_tokenizer else None,
        str(folder),
        stored.head,
        stored.dtype,
        meta=_read_manifest(folder),
        folder=folder,
    )


def _read_manifest(folder: Path) -> dict[str, Any]:
    """Return what the manifest of an earlier conversion records of training and data."""
    file = folder / "manifest.json"
    manifest = read_json(file) if file.is_file() else {}
    if not isinstance(manifest, dict) or not isinstance(manifest.get("data", {}), dict):
        raise InputError(f"{file} is not a manifest of ours; remove it")
    progress = {
        key: manifest[key] for key in ("step", "tokens_seen") if manifest.get(key) is not None
    }
    recorded = {"progress": progress, "data": manifest.get("data", {})}
    return {key: value for key, value in recorded.items() if value}


def _read_ours(path: Path) -> Weights:
    folder = checkpoint.latest(path)
    state, meta = checkpoint.load(folder)
    config = ModelConfig(**meta["config"]["model"])
    head_values = meta.get("head", {})  # training's checkpoints do not say: they are masked LMs
    head = Head(**{**head_values, "labels": tuple(head_values.get("labels", ()))})
    rows = table(config, head)
    check_complete(
        {name: x.shape for name, x in state.params.items()},
        [row._replace(stored=row.shape) for row in rows],
        str(folder),
    )
    check_finite(state.params, str(folder))
    places = (folder / "tokenizer", folder.parent.parent / "tokenizer")
    return Weights(
        config,
        {row.name: state.params[row.name] for row in rows},
        meta["tokenizer"]["special"],
        next((place for place in places if (place / "tokenizer.json").is_file()), None),
        str(folder),
        head,
        meta.get("dtype", "float32"),
        state.opt_state,
        {key: meta[key] for key in ("progress", "config", "data", "composer") if key in meta},
    )


def _read_composer(file: Path, model_config: Path | None) -> Weights:
    content = composer.read_composer(file, model_config)
    tokenizer = _unpack_tokenizer(content.tokenizer, file)
    special: dict[str, int | None] = {}
    if tokenizer is not None:
        try:
            special = dict(load_tokenizer(str(tokenizer)).special.__dict__)
        except Exception as error:  # tokenizers raises plain Exception
            raise InputError(f"the tokenizer in {file} cannot be read: {reason(error)}") from error
    return Weights(
        content.config,
        content.params,
        special,
        tokenizer,
        str(file),
        opt_state=content.opt_state,
        meta={
            **_read_manifest(file.parent),
            **({"progress": content.progress} if content.progress else {}),
            "composer": content.rest,
        },
    )


def _unpack_tokenizer(files: Mapping[str, Any], origin: Path) -> Path | None:
    """Write the tokenizer that a `.pt` carries to a folder that lives as long as this process."""
    if "tokenizer.json" not in files:
        log.warning("%s carries no tokenizer; exports of it will have none", origin)
        return None
    place = tempfile.TemporaryDirectory(prefix="tokenizer-")
    atexit.register(place.cleanup)
    for name in TOKENIZER_FILES:
        if name in files:
            write_json(Path(place.name) / name, files[name])
    return Path(place.name)
