# SPDX-License-Identifier: Apache-2.0
"""Proof that a written model is the one that was read: every bit, and transformers' logits."""

import contextlib
import dataclasses
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.ops.rope import rope_frequencies
from bcmb_jax.optimizer import StableAdamWState
from conversion import torch_models
from conversion.huggingface import name_tensors
from conversion.mapping import Weights
from conversion.pretrained import PretrainedModel
from conversion.torch_files import array

if TYPE_CHECKING:
    import transformers

log = logging.getLogger(__name__)

# What transformers' own fp32 model is off by against float64 is the scale of what can be called
# rounding, on trained weights too, whose activations have outliers. Ours computes in float64 for
# the verdict, since XLA's fp32 products on a CPU are rounded two to three times as coarsely as
# PyTorch's, whatever was converted. The smallest mistake we know of, a window off by one, is 1e-3
# of the largest logit and more. The floor, of that logit, is what cosines and sines in fp32 leave.
ERROR_RATIO = 2.0
ERROR_FLOOR = 1e-6
# RoPE frequencies that differ by less are the same ones, computed otherwise: four units in the last
# place. A trained model feels them at long distances, so both sides are compared with ours.
ROUNDED_FREQUENCY = 4 * 2.0**-23
LONG = 640  # tokens: beyond a window, and beyond a tile of every attention kernel
SAMPLE = 64  # positions compared of each kind of input: a vocabulary's logits at all would be GBs

Inputs = Mapping[str, tuple[np.ndarray, np.ndarray]]
"""By kind of input, a row's `(tokens, segment_ids)`, both `[L]`."""
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
      frequencies: what transformers' own RoPE frequencies change in its float64 logits on any
        input; everything else is compared with ours on both sides.
    """

    kind: str
    difference: float
    error: float
    their_error: float
    frequencies: float = 0.0


def compare(source: Weights, written: Weights) -> TensorDifference:
    """Compare all of `written` with all of `source`: tensors, moments, counters, sizes, metadata.

    Raises:
      InputError: they are not the same model, or not at the same point of its training.
    """
    # Training dropout has no place in Hugging Face's config; document length and the pooling of a
    # later classifier have none in FlexBERT's.
    lost, head = ["attention_output_dropout"], source.head
    if "composer" in written.meta:
        lost.append("max_position_embeddings")
        head = dataclasses.replace(head, pooling=written.head.pooling)
    kept = {field: getattr(source.config, field) for field in lost}
    if dataclasses.replace(written.config, **kept) != source.config:
        raise InputError(f"verification failed: config {written.config} is not {source.config}")
    if (written.head, written.dtype) != (head, source.dtype):
        raise InputError(
            f"verification failed: {written.head}, {written.dtype} is not {head}, {source.dtype}"
        )
    if (written.opt_state is None) != (source.opt_state is None):
        raise InputError("verification failed: the optimizer's state is in one of the two")
    ours, theirs = (x.params | dict(_moments(x.opt_state)) for x in (source, written))
    tensors = compare_tensors(ours, theirs)
    _compare_meta(source, written)
    return tensors


def _compare_meta(source: Weights, written: Weights) -> None:
    """Compare the metadata beside tensors.

    The rest of a Composer file must be whole, unless it went into a Hugging Face folder, which has
    no place for it; of other metadata only what both formats keep is compared.

    Raises:
      InputError: it has changed, or is not all there.
    """
    if written.agreements != source.agreements:
        raise InputError(f"verification failed: the agreements of {source.origin} have changed")
    ours, theirs = source.meta, written.meta
    changed = [k for k in ("progress", "data") if not _agree(ours.get(k, {}), theirs.get(k, {}))]
    if "composer" in ours and written.folder is None:
        same = _text(ours["composer"]) == _text(theirs.get("composer"))
        changed += [] if same else ["composer"]
    if changed:
        raise InputError(f"verification failed: {changed[0]} of {source.origin} has changed")


def _agree(ours: object, theirs: object) -> bool:
    """Return whether two JSON trees agree on the keys that both have."""
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return all(_agree(ours[key], theirs[key]) for key in ours.keys() & theirs.keys())
    return _text(ours) == _text(theirs)


def _text(tree: object) -> str:
    """Encode JSON for comparison: NaN equals itself, the order of keys does not matter."""
    return json.dumps(tree, sort_keys=True)


def _moments(opt_state: StableAdamWState | None) -> Iterator[tuple[str, np.ndarray]]:
    for path, leaf in jax.tree_util.tree_leaves_with_path(opt_state):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        if name != "clipped_fraction":  # of the last step, for the display alone
            yield name, np.atleast_1d(leaf)


def compare_tensors(
    ours: Mapping[str, np.ndarray], theirs: Mapping[str, np.ndarray], verdict: str = "changed"
) -> TensorDifference:
    """Compare tensors bit by bit.

    Args:
      verdict: what to say of tensors that differ.

    Raises:
      InputError: a name, a shape or a bit differs.
    """
    if ours.keys() != theirs.keys():
        wrong = sorted(ours.keys() ^ theirs.keys())
        raise InputError(f"verification failed: {len(wrong)} tensors in one of two, {wrong[:1]}")
    changed = {}
    for name, x in ours.items():
        y = theirs[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            raise InputError(f"verification failed: {name} is {y.dtype}{y.shape}, was {x.shape}")
        if not np.array_equal(x.view(np.uint8), y.view(np.uint8)):
            changed[name] = np.abs(x.astype(np.float64) - y).max()
    if changed:
        worst = max(changed, key=changed.__getitem__)
        raise InputError(
            f"verification failed: {len(changed)} of {len(ours)} tensors {verdict}, the worst "
            f"{worst} by up to {changed[worst]:.2e}"
        )
    return TensorDifference(len(ours), next(iter(ours), ""), 0.0)


def compare_with_input(weights: Weights, folder: Path) -> None:
    """Compare weights that were read from a Hugging Face folder with what transformers reads there.

    Raises:
      InputError: a bit differs, beyond the rounding to the type that `weights` are stored in.
    """
    _compare_loaded(_torch_model(weights, folder), weights, folder)


def _compare_loaded(model: "transformers.PreTrainedModel", weights: Weights, folder: Path) -> None:
    import torch

    theirs, dtype = model.state_dict(), getattr(torch, weights.dtype)
    ours = name_tensors(weights.params, weights.config, weights.head)
    read = {name: array(theirs[name].to(dtype).float()) for name in ours if name in theirs}
    compare_tensors(ours, read, f"are not what transformers reads from {folder}")


def compare_with_transformers(
    weights: Weights, folder: Path | None, say: Callable[[str], None] = lambda _: None
) -> LogitDifference:
    """Compare outputs of our and transformers' model with those of transformers in float64.

    Both take RoPE frequencies from the same table; what transformers' own table changes is measured
    beside the verdict.

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
    if folder is not None:
        _compare_loaded(model, weights, folder)
    with our_frequencies(model, weights.config):
        theirs = torch_outputs(model, inputs)
        reference = torch_outputs(model.double(), inputs)
    own = torch_outputs(model, inputs)
    changes = [float(np.abs(own[kind] - reference[kind]).max()) for kind in inputs]
    return judge(ours, exact, theirs, reference)._replace(frequencies=max(changes))


@contextlib.contextmanager
def our_frequencies(model: "transformers.PreTrainedModel", config: ModelConfig) -> Iterator[None]:
    """Give transformers' model our RoPE frequencies where its own are the same but for rounding.

    Others it keeps: they are of another theta or head size, which must be noticed.
    """
    import torch

    thetas = config.global_rope_theta, config.local_rope_theta
    tables = [torch.from_numpy(rope_frequencies(theta, config.head_size)) for theta in thetas]
    own = {name: x.clone() for name, x in model.named_buffers() if name.endswith("inv_freq")}
    for name, x in own.items():
        for table in tables:
            if x.shape == table.shape and torch.allclose(x, table, ROUNDED_FREQUENCY, 0.0):
                model.get_buffer(name).copy_(table)
    yield
    for name, x in own.items():
        model.get_buffer(name).copy_(x)


def judge(ours: Outputs, exact: Outputs, theirs: Outputs, reference: Outputs) -> LogitDifference:
    """Judge outputs by kind of input: ours in fp32 and float64, transformers' in fp32 and float64.

    Raises:
      InputError: ours are wrong.
    """
    results = []
    for kind, right in reference.items():
        error, their_error, difference = (
            float(np.abs(x[kind] - y[kind]).max())
            for x, y in ((exact, reference), (theirs, reference), (ours, theirs))
        )
        scale = max(1.0, float(np.abs(right).max()))
        allowed = max(ERROR_RATIO * their_error, ERROR_FLOOR * scale)
        if not error <= allowed:  # so that NaN fails too
            raise InputError(
                f"verification failed: logits on {kind} input are off by {error:.2e} (largest "
                f"logit {scale:.1f}), transformers' by {their_error:.2e}; at most {allowed:.2e} "
                "is rounding"
            )
        results.append(LogitDifference(kind, difference, error, their_error))
    return max(results, key=lambda x: x.difference)


def make_inputs(weights: Weights) -> Inputs:
    """Draw random tokens: a row with padding, one of several documents, and a full one."""
    # One length, since each is compiled once for each dtype.
    long = min(LONG, weights.config.max_position_embeddings)
    layouts = {
        "padded": [long * 3 // 4],
        "packed": [5, long // 2, 1, long // 3],
        "long": [long],
    }
    rng = np.random.default_rng(0)
    inputs = {}
    for kind, lengths in layouts.items():
        segment_ids = np.repeat(np.arange(1, len(lengths) + 1, dtype=np.int32), lengths)
        tokens = rng.integers(0, weights.config.vocab_size, long, dtype=np.int32)
        inputs[kind] = tokens, np.pad(segment_ids, (0, long - len(segment_ids)))
    return inputs


def our_outputs(weights: Weights, inputs: Inputs, dtype: jnp.dtype) -> Outputs:
    """Compute our outputs in fp32 or float64; a sequence classifier has one for each document."""
    with jax.enable_x64(dtype == jnp.float64):
        model = PretrainedModel(weights, dtype)
        pools = model.head.kind == "sequence_classification"
        outputs = {}
        for kind, (tokens, segment_ids) in inputs.items():
            documents = int(segment_ids.max()) if pools else 1
            out = np.asarray(model(tokens[None], segment_ids[None], num_segments=documents))[0]
            outputs[kind] = _sample(out if pools else out[segment_ids > 0])
        return outputs


def torch_outputs(model: "transformers.PreTrainedModel", inputs: Inputs) -> Outputs:
    """Compute transformers' outputs: padded rows with a mask, packed documents one by one."""
    import torch

    def run(tokens: np.ndarray, mask: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            ids, mask_ = (torch.from_numpy(x[None].astype(np.int64)) for x in (tokens, mask))
            out = model(ids, attention_mask=mask_)
        values = out.last_hidden_state if "last_hidden_state" in out else out.logits
        return np.asarray(values if values.ndim == 2 else values[0][mask > 0])  # one, or each token

    outputs = {}
    for kind, (tokens, segment_ids) in inputs.items():
        documents = [(tokens, segment_ids)]
        if segment_ids.max() > 1:
            inside = [segment_ids == i for i in range(1, segment_ids.max() + 1)]
            documents = [(tokens[x], segment_ids[x]) for x in inside]
        parts = [run(ids, segments > 0) for ids, segments in documents]
        outputs[kind] = _sample(np.concatenate(parts))
    return outputs


def _sample(outputs: np.ndarray) -> np.ndarray:
    last = len(outputs) - 1
    chosen = np.unique(np.linspace(0, last, min(SAMPLE, last + 1)).astype(int))
    sampled: np.ndarray = outputs[chosen]
    return sampled


def _torch_model(weights: Weights, folder: Path | None) -> "transformers.PreTrainedModel":
    import transformers

    torch_models.be_quiet()
    if folder is not None:
        model = torch_models.load_model(folder, weights.head.kind)
        empty = [name for name, x in model.named_parameters() if x.is_meta]
        if not empty:
            return model.eval()
        log.warning(
            "transformers %s leaves %s of %s without values (a later one reads them); it is given "
            "the tensors as read here",
            transformers.__version__,
            empty[0],
            folder,
        )
    return torch_models.build_modernbert(weights.config, weights.head, weights.params).eval()
