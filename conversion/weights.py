# SPDX-License-Identifier: Apache-2.0
"""Weights of a model in host memory, read from any place that this package knows."""

import logging
from pathlib import Path
from typing import Any

import jax
from flax import nnx

from bcmb_jax import hub
from bcmb_jax.agreements import of_checkpoint
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import init_parameters
from bcmb_jax.training import checkpoint
from conversion.composer import read_composer
from conversion.config_json import default_labels
from conversion.huggingface import read_huggingface
from conversion.mapping import Weights, check_complete, check_finite, laid_out_as, table
from conversion.model_card import with_agreements

log = logging.getLogger(__name__)


_KEPT = ("progress", "config", "data", "composer", "tokenizer_reviewed")
"""Parts of a checkpoint's metadata that go with its weights."""


def read(name: str | Path, *, model_config: Path | None = None) -> Weights:
    """Read weights from any place and format.

    These are a Hugging Face folder, a checkpoint or workdir of ours, a Composer `.pt` or a folder
    with one; or a name on the hub whose files `hub.fetch` has fetched.

    Args:
      model_config: the sizes in a `.pt` that does not hold them.

    Raises:
      InputError: there is nothing of the kind, or not a whole ModernBERT.
      NumericsError: its weights or moments hold NaN or infinity.
    """
    path = hub.locate(name)
    weights = _read(path, model_config)
    if path != Path(name).expanduser():
        weights = weights._replace(origin=str(name).removeprefix(hub.HUB))
    return with_agreements(weights)


def _read(path: Path, model_config: Path | None) -> Weights:
    if path.is_file() and path.suffix != ".pt":
        raise InputError(f"{path} is a file; give the folder it is in, or a Composer .pt")
    if path.is_file():
        return read_composer(path, model_config)
    pickles = [] if (path / "config.json").is_file() else sorted(path.glob("*.pt"))
    if len(pickles) > 1:
        raise InputError(f"{path} holds {len(pickles)} .pt files; name one, such as {pickles[-1]}")
    if pickles:
        return read_composer(pickles[0], model_config)
    if model_config is not None:
        raise InputError(f"--model-config is for a Composer .pt; {path} holds its own config")
    if path.name == "checkpoints" or any((path / x).is_dir() for x in ("meta", "checkpoints")):
        return _read_ours(path)
    return read_huggingface(path)


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


def _read_ours(path: Path) -> Weights:
    folder, state, meta = _load_newest(checkpoint.newest_first(path))
    with laid_out_as("a checkpoint of ours", folder):
        config = ModelConfig(**meta["config"]["model"])
    head_values = meta.get("head", {})  # training's checkpoints do not say: they are masked LMs
    lists = {key: tuple(head_values.get(key, ())) for key in ("labels", "thresholds")}
    head = Head(**{**head_values, **lists})
    rows = table(config, head)
    check_complete(state.params, {row.name: row.shape for row in rows}, str(folder))
    check_finite(state.params, str(folder))
    places = (folder / "tokenizer", folder.parent.parent / "tokenizer")
    return Weights(
        config,
        {row.name: state.params[row.name] for row in rows},
        meta["tokenizer"]["special"],
        tokenizer=next((place for place in places if (place / "tokenizer.json").is_file()), None),
        origin=str(folder),
        head=head,
        dtype=meta.get("dtype", "float32"),
        opt_state=state.opt_state,
        meta={key: meta[key] for key in _KEPT if key in meta}
        | {"progress": {k: x for k, x in meta["progress"].items() if k != "agreements"}},
        agreements=of_checkpoint(meta),
    )


def _load_newest(folders: list[Path]) -> tuple[Path, checkpoint.TrainState, dict[str, Any]]:
    """Load the first of these checkpoints that is whole, and say which were not."""
    folder, *older = folders
    try:
        return folder, *checkpoint.load(folder)
    except checkpoint.DamagedCheckpoint as error:
        if not older:
            raise
        log.warning("%s; reading the one before, of step %s", error, older[0].name)
    return _load_newest(older)
