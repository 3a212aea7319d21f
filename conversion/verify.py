# SPDX-License-Identifier: Apache-2.0
"""Proof that a written model is the one that was read: every bit, and transformers' logits."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bcmb_jax.errors import InputError
from conversion import torch_models
from conversion.pretrained import PretrainedModel
from conversion.weights import Weights

# What transformers' own fp32 model is off by against float64 is the scale of what can be called
# rounding, on trained weights too, whose activations have outliers. Ours computes in float64 for
# the verdict, since XLA's fp32 products on a CPU are rounded two to three times as coarsely as
# PyTorch's, whatever was converted. The smallest mistake we know of, a window off by one, is 1e-3
# of the largest logit and more. The floor, of that logit, is what the fp32 RoPE tables leave.
ERROR_RATIO = 2.0
ERROR_FLOOR = 1e-6
LONG = 640  # tokens: beyond a window, and beyond a tile of every attention kernel
SAMPLE = 64  # positions compared of each kind of input: a vocabulary's logits at all would be GBs

Outputs = Mapping[str, np.ndarray]
"""By kind of input, outputs at `SAMPLE` real positions (or documents), `[N, outputs]`."""


class TensorDifference(NamedTuple):
    """How many tensors were compared, and where elements differ most, by how much."""

    tensors: int
    worst: str
    difference: float


class LogitDifference(NamedTuple):
    """The input on which ours and transformers' differ most.

    Attributes:
      difference: between ours and transformers', both in fp32.
      error: of ours in float64 against transformers' in float64.
      their_error: of theirs in fp32 against the same.
    """

    kind: str
    difference: float
    error: float
    their_error: float


def compare(source: Weights, written: Weights) -> TensorDifference:
    """Compare all of `written` with all of `source`: tensors, moments, counters, sizes, metadata.

    Raises:
      InputError: they are not the same model, or not at the same point of its training.
    """
    # Training dropout has no place in Hugging Face's config, nor document length in FlexBERT's.
    lost = ["attention_output_dropout"]
    if "composer" in written.meta:
        lost.append("max_position_embeddings")
    kept = {field: getattr(source.config, field) for field in lost}
    if dataclasses.replace(written.config, **kept) != source.config:
        raise InputError(f"verification failed: config {written.config} is not {source.config}")
    if (written.head, written.dtype) != (source.head, source.dtype):
        raise InputError(
            f"verification failed: {written.head}, {written.dtype} is not {source.head}, "
            f"{source.dtype}"
        )
    tensors = compare_tensors(source.params, written.params)
    if (written.opt_state is None) != (source.opt_state is None):
        raise InputError("verification failed: the optimizer's state is in one of the two")
    _compare_meta(source, written)
    if source.opt_state is None:
        return tensors
    ours, theirs = (dict(_leaves(state.opt_state)) for state in (source, written))
    moments = compare_tensors(ours, theirs)
    worst = max(tensors, moments, key=lambda x: x.difference)
    return TensorDifference(tensors.tensors + moments.tensors, worst.worst, worst.difference)


def _compare_meta(source: Weights, written: Weights) -> None:
    """Compare the metadata beside tensors.

    The rest of a Composer file must be whole, unless it went into a Hugging Face folder, which has
    no place for it; of other metadata only what both formats keep is compared.

    Raises:
      InputError: it has changed, or is not all there.
    """
    changed = [
        key
        for key in ("progress", "data")
        if not _agree(source.meta.get(key, {}), written.meta.get(key, {}))
    ]
    to_composer = "composer" in source.meta and written.folder is None
    if to_composer and _text(source.meta["composer"]) != _text(written.meta.get("composer")):
        changed.append("composer")
    if changed:
        raise InputError(f"verification failed: {changed[0]} of {source.origin} has changed")


def _agree(ours: Any, theirs: Any) -> bool:
    """Return whether two JSON trees agree on the keys that both have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_agree(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    return _text(ours) == _text(theirs)


def _text(tree: Any) -> str:
    """Encode JSON for comparison: NaN equals itself, the order of keys does not matter."""
    return json.dumps(tree, sort_keys=True)


def _leaves(tree: Any) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name != "clipped_fraction":  # of the last step, for the display alone
            yield name, np.atleast_1d(leaf)


def compare_tensors(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray]
) -> TensorDifference:
    """Compare tensors bit by bit.

    Raises:
      InputError: a name, a shape or a bit differs.
    """
    if ours.keys() != theirs.keys():
        wrong = sorted(ours.keys() ^ theirs.keys())
        raise InputError(f"verification failed: {len(wrong)} tensors in one of two, {wrong[:1]}")
    worst, largest, changed = next(iter(ours), ""), 0.0, []
    for name, x in ours.items():
        y = theirs[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            raise InputError(f"verification failed: {name} is {y.dtype}{y.shape}, was {x.shape}")
        if not np.array_equal(x.view(np.uint8), y.view(np.uint8)):
            changed.append(name)
            difference = float(np.abs(x.astype(np.float64) - y).max())
            if not difference <= largest:
                worst, largest = name, difference
    if changed:
        raise InputError(
            f"verification failed: {len(changed)} of {len(ours)} tensors changed, the worst "
            f"{worst} by up to {largest:.2e}"
        )
    return TensorDifference(len(ours), worst, largest)


def compare_with_transformers(
    weights: Weights, folder: Path | None, say: Callable[[str], None] = lambda _: None
) -> LogitDifference:
    """Compare outputs of our and transformers' model with those of transformers in float64.

    Args:
      folder: the Hugging Face folder that transformers loads; None gives it the tensors.
      say: called with a line for each stage.

    Raises:
      InputError: ours are further off than `ERROR_RATIO` times transformers' own rounding.
    """
    inputs = make_inputs(weights)
    say("logits in JAX")
    ours = our_outputs(weights, inputs, jnp.dtype("float32"))
    exact = our_outputs(weights, inputs, jnp.dtype("float64"))
    say("logits in PyTorch")
    model = _torch_model(weights, folder)
    theirs = torch_outputs(model, inputs)
    reference = torch_outputs(model.double(), inputs)
    return judge(ours, exact, theirs, reference)


def judge(ours: Outputs, exact: Outputs, theirs: Outputs, reference: Outputs) -> LogitDifference:
    """Judge outputs by kind of input: ours in fp32 and float64, transformers' in fp32 and float64.

    Raises:
      InputError: ours are wrong.
    """

    def worst(x: np.ndarray, y: np.ndarray) -> float:
        return float(np.abs(x - y).max())

    found = []
    for kind, right in reference.items():
        error, their_error = worst(exact[kind], right), worst(theirs[kind], right)
        difference = worst(ours[kind], theirs[kind])
        scale = max(1.0, float(np.abs(right).max()))
        allowed = max(ERROR_RATIO * their_error, ERROR_FLOOR * scale)
        if not error <= allowed:  # so that NaN fails too
            raise InputError(
                f"verification failed: logits on {kind} input are off by {error:.2e} (largest "
                f"logit {scale:.1f}), transformers' by {their_error:.2e}; at most {allowed:.2e} "
                "is rounding"
            )
        found.append(LogitDifference(kind, difference, error, their_error))
    return max(found, key=lambda x: x.difference)


Inputs = Mapping[str, tuple[np.ndarray, np.ndarray]]


def make_inputs(weights: Weights) -> Inputs:
    """Draw random tokens as `(tokens, segment_ids)`: a padded row, a packed one, a full one."""
    # One shape, since each is compiled once for each dtype.
    long = min(LONG, weights.config.max_position_embeddings)
    layouts = {
        "padded": [long * 3 // 4],
        "packed": [5, long // 2, 1, long // 3],
        "long": [long],
    }
    rng = np.random.default_rng(0)
    inputs = {}
    for kind, lengths in layouts.items():
        segments = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
        tokens = rng.integers(0, weights.config.vocab_size, (1, long), dtype=np.int32)
        inputs[kind] = tokens, np.pad(segments, (0, long - len(segments)))[None]
    return inputs


def our_outputs(weights: Weights, inputs: Inputs, dtype: jnp.dtype) -> Outputs:
    """Compute our outputs in fp32 or float64; a sequence classifier has one for each document."""
    with jax.enable_x64(dtype == jnp.float64):
        return _our_outputs(PretrainedModel(weights, dtype), inputs)


def _our_outputs(model: PretrainedModel, inputs: Inputs) -> Outputs:
    outputs = {}
    for kind, (tokens, segment_ids) in inputs.items():
        if model.head.kind == "sequence_classification":
            segments = int(segment_ids.max())
            out = np.asarray(model(tokens, segment_ids, num_segments=segments))
            present = np.arange(1, segments + 1) <= segment_ids.max(1, keepdims=True)
            outputs[kind] = _sample(out[present])
        else:
            outputs[kind] = _sample(np.asarray(model(tokens, segment_ids))[segment_ids > 0])
    return outputs


def torch_outputs(model: Any, inputs: Inputs) -> Outputs:
    """Compute transformers' outputs: padded rows with a mask, packed documents one by one."""
    import torch

    def run(tokens: np.ndarray, mask: np.ndarray) -> list[np.ndarray]:
        with torch.no_grad():
            ids, mask_ = (torch.from_numpy(x.astype(np.int64)) for x in (tokens, mask))
            out = model(ids, attention_mask=mask_)
        values = (out.last_hidden_state if "last_hidden_state" in out else out.logits).numpy()
        if values.ndim == 2:  # one a row
            return list(values[:, None])
        return [row[real] for row, real in zip(values, mask > 0, strict=True)]

    outputs = {}
    for kind, (tokens, segment_ids) in inputs.items():
        if segment_ids.max() == 1:
            parts = run(tokens, segment_ids)
        else:
            parts = []
            for row, segments in zip(tokens, segment_ids, strict=True):
                for segment in range(1, segments.max() + 1):
                    document = row[None, segments == segment]
                    parts += run(document, np.ones_like(document))
        outputs[kind] = _sample(np.concatenate(parts))
    return outputs


def _sample(outputs: np.ndarray) -> np.ndarray:
    last = len(outputs) - 1
    chosen: np.ndarray = np.unique(np.linspace(0, last, min(SAMPLE, last + 1)).astype(int))
    sampled: np.ndarray = outputs[chosen]
    return sampled


def _torch_model(weights: Weights, folder: Path | None) -> Any:
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    if folder is None:
        model = torch_models.build_modernbert(weights.config, weights.head, weights.params)
    else:
        model = torch_models.load_model(folder, weights.head.kind)
    return model.eval()
