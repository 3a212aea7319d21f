# SPDX-License-Identifier: Apache-2.0
"""Weights of a model in host memory, read from any place that this package knows."""

import logging
import re
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from bcmb_jax.data import hub
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import init_parameters
from bcmb_jax.training import checkpoint
from conversion.composer import read_composer
from conversion.config_json import default_labels
from conversion.huggingface import read_huggingface, snapshot
from conversion.mapping import Weights, check_complete, check_finite, some, table

log = logging.getLogger(__name__)


BIOCLINICAL = "thomas-sounack/BioClinical-ModernBERT-checkpoints"


class Start(NamedTuple):
    """A Composer checkpoint on the Hugging Face hub.

    Attributes:
      file: its path, or words that are in the path of no other run of the hub id; of a run the
        newest file counts.
      without: words that are not in the path.
    """

    hub_id: str
    file: str
    without: str = ""


# Stable: the last before the learning rate decays (the recipe's `load_path`); final: after that.
STARTS = {
    "modernbert-base:stable": Start(
        "answerdotai/ModernBERT-base-training-checkpoints",
        "context-extension/ep0-ba52988-rank0.pt",
    ),
    "modernbert-large:stable": Start(
        "answerdotai/ModernBERT-large-training-checkpoints",
        "context-extension/ep0-ba49552-rank0.pt",
    ),
    "mmbert-base:stable": Start("jhu-clsp/mmBERT-checkpoints", "extension/mmbert-base-ext.pt"),
    "mmbert-base:final": Start("jhu-clsp/mmBERT-checkpoints", "decay/mmbert-base-all.pt"),
    "bioclinical-modernbert-base:stable": Start(BIOCLINICAL, "base phase1"),
    "bioclinical-modernbert-large:stable": Start(BIOCLINICAL, "large phase1"),
    "bioclinical-modernbert-base:final": Start(BIOCLINICAL, "base phase2", "bio"),
    "bioclinical-modernbert-large:final": Start(BIOCLINICAL, "large phase2", "bio"),
    "bio-modernbert-base:final": Start(BIOCLINICAL, "base bio"),
    "bio-modernbert-large:final": Start(BIOCLINICAL, "large bio"),
}


def read(path_or_id: str | Path, *, model_config: Path | None = None) -> Weights:
    """Read weights from any place and format.

    These are a Hugging Face folder or hub id, a checkpoint or workdir of ours, a Composer `.pt` (a
    folder with one, or `hub:OWNER/NAME/FILE.pt`), or a named starting point (`STARTS`).

    Args:
      model_config: the sizes in a `.pt` that does not hold them.

    Raises:
      InputError: there is nothing of the kind, or not a whole ModernBERT.
    """
    name = str(path_or_id)
    if name in STARTS:
        path = fetch(STARTS[name])
    elif name.startswith("hub:") and name.endswith(".pt") and name.count("/") > 1:
        owner, hub_id, file = name.removeprefix("hub:").split("/", 2)
        path = hub.single_file(f"{owner}/{hub_id}", file)
    else:
        path = Path(path_or_id).expanduser()
    if path.is_file() and path.suffix != ".pt":
        raise InputError(f"{path} is a file; give the folder it is in, or a Composer .pt")
    if path.suffix == ".pt" and not path.is_dir():
        return read_composer(path, model_config)
    pickles = [] if (path / "config.json").is_file() else sorted(path.glob("*.pt"))
    if len(pickles) > 1:
        raise InputError(f"{path} holds {len(pickles)} .pt files; name one, such as {pickles[-1]}")
    if pickles:
        return read_composer(pickles[0], model_config)
    if model_config is not None:
        raise InputError(f"--model-config is for a Composer .pt; {path} holds its own config")
    if not path.is_dir():
        return read_huggingface(snapshot(str(path_or_id)))._replace(origin=str(path_or_id))
    if path.name == "checkpoints" or any((path / x).is_dir() for x in ("meta", "checkpoints")):
        return _read_ours(path)
    return read_huggingface(path)


def fetch(start: Start) -> Path:
    """Return the file of a starting point, from the local cache or fetched into it.

    Raises:
      InputError: it cannot be had, or words name no single run of the hub id.
    """
    if start.file.endswith(".pt"):
        return hub.single_file(start.hub_id, start.file)
    with_words, without = start.file.split(), start.without.split()
    runs: dict[str, list[str]] = {}
    files = sorted(x for x in hub.list_files(start.hub_id) if x.endswith(".pt"))
    for file in files:
        words = re.split(r"[^a-z0-9]+", re.sub(r"phase[^a-z0-9]+", "phase", file.lower()))
        if set(with_words) <= set(words) and not set(without) & set(words):
            runs.setdefault(file.rpartition("/")[0], []).append(file)
    if len(runs) != 1:
        raise InputError(
            f"{len(runs)} runs of {start.hub_id} are called {start.file}; give one of its "
            f"{len(files)} files as hub:{start.hub_id}/FILE.pt: {some(files)}"
        )
    (run,) = runs.values()
    newest = max(run, key=lambda file: [int(x) for x in re.findall(r"\bba(\d+)", file)])
    return hub.single_file(start.hub_id, newest)


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
    config = ModelConfig(**meta["config"]["model"])
    head_values = meta.get("head", {})  # training's checkpoints do not say: they are masked LMs
    head = Head(**{**head_values, "labels": tuple(head_values.get("labels", ()))})
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
        meta={key: meta[key] for key in ("progress", "config", "data", "composer") if key in meta},
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
