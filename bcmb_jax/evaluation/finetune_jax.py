# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in JAX on packed rows, which give what a padded batch gives, without its padding."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from bcmb_jax.data.rows import assign, fill_rows
from bcmb_jax.device import target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import IGNORED, Encoded, as_labels
from bcmb_jax.evaluation.examples import Kind
from bcmb_jax.evaluation.protocol import Predicted
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import Parameters, init_parameters, merge, split
from bcmb_jax.optimizer import weight_decay_mask

TOKENS_AT_ONCE = {"cpu": 8_192, "gpu": 32_768, "tpu": 32_768}
"""Positions in one pass; the gradients of a larger batch are added up over several passes."""

SHARED_ROW, SHARED_BY = 256, 3
"""Examples share rows of `SHARED_ROW` tokens, or of as many as `SHARED_BY` mean examples need.

In longer rows a CPU's tiles of attention hold more masked positions (a step on ChemProt's sentences
takes 1.5 times as long in rows of 2,048). In shorter ones, a row of one or two abstracts is mostly
padding.
"""

HEADS: Mapping[Kind, str] = {
    "single_label": "sequence_classification",
    "multi_label": "sequence_classification",
    "tagging": "token_classification",
}
"""The kind of head (`model.heads.MODELS`) for a kind of task."""


class Rows(NamedTuple):
    """Packed examples: `B` rows of `L` tokens with up to `S` examples each.

    Attributes:
      tokens, segment_ids, positions: `[B, L]`, as in `Batch`.
      targets: `IGNORED` where there is none: single_label `[B, S]`, tagging `[B, L]`, int32;
        multi_label `[B, S, labels]`, float32, negative where there is none.
    """

    tokens: np.ndarray | jax.Array
    segment_ids: np.ndarray | jax.Array
    positions: np.ndarray | jax.Array
    targets: np.ndarray | jax.Array


class Place(NamedTuple):
    """Where an example lies: its row, its number in the row, and its first position."""

    row: int
    segment: int
    start: int


Logits = Callable[[Parameters, Rows], jax.Array]


class State(NamedTuple):
    """Parameters by name, and the optimizer's state."""

    params: Parameters
    opt_state: optax.OptState


class JaxClassifier:
    """A ModernBERT with a classification head; a `protocol.Classifier`.

    Args:
      params: parameters by checkpoint name; if empty, `reset` draws all. A classifier among them is
        kept if it has as many labels as `head`; otherwise `reset` draws one.
      dtype: type of the matrix products.

    Raises:
      InputError: the encoder's parameters are missing, or have other sizes.
    """

    def __init__(
        self,
        config: ModelConfig,
        head: Head,
        params: Mapping[str, np.ndarray],
        *,
        kind: Kind,
        dtype: jnp.dtype,
        batch_size: int,
        weight_decay: float,
    ):
        self._kind, self._labels = kind, head.labels
        self._batch_size = batch_size
        self._make = functools.partial(MODELS[head.kind], config, head, dtype=dtype)
        graph, self._shapes = split(lambda: self._make(rngs=nnx.Rngs(0)))
        self._given = _fitting(params, self._shapes)
        # The learning rate is an argument of each step, so it is not part of the chain.
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(0.9, 0.999, 1e-8),
            optax.add_decayed_weights(weight_decay, weight_decay_mask),
        )
        logits = functools.partial(_logits, graph, kind)
        self._begin = jax.jit(lambda params: State(params, optimizer.init(params)))
        self._step = jax.jit(functools.partial(_step, logits, kind, optimizer), donate_argnums=0)
        self._predict = jax.jit(lambda params, rows: _predict(logits, kind, params, rows))
        self._state: State

    def reset(self, seed: int) -> None:
        """Take the given weights, what they lack drawn by `seed`, and a fresh optimizer."""
        missing = self._shapes.keys() - self._given.keys()

        def fresh() -> Parameters:
            params = init_parameters(lambda: self._make(rngs=nnx.Rngs(seed)))
            return {name: params[name] for name in missing}

        new = jax.device_get(jax.jit(fresh)()) if missing else {}
        self.restore(self._given | new)

    def step(self, examples: Sequence[Encoded], learning_rate: float) -> jax.Array:
        """Take one optimizer step and return the loss before it."""
        passes, _ = self._pack(examples, self._batch_size)
        rows = jax.tree.map(lambda *x: np.stack(x), *passes)
        count = max(1, sum(_targets_of(self._kind, e) for e in examples))
        self._state, loss = self._step(self._state, rows, float(count), learning_rate)
        return loss

    def predict(self, examples: Sequence[Encoded]) -> Predicted:
        """Predict the labels of examples."""
        passes, places = self._pack(examples, None)
        rows = np.concatenate([self._predict(self._state.params, x) for x in passes])
        predicted = []
        for place, example in zip(places, examples, strict=True):
            row = rows[place.row]
            choice = row[place.start :] if self._kind == "tagging" else row[place.segment]
            predicted.append(as_labels(self._kind, self._labels, choice, example))
        return predicted

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copy the weights to the host."""
        # Copies: on a CPU the host's view would be of a buffer that the next step takes.
        return {name: np.array(x) for name, x in self._state.params.items()}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Put back the weights of a snapshot, with a fresh optimizer."""
        # Copies for the same reason.
        self._state = self._begin({name: jnp.array(x) for name, x in snapshot.items()})

    def _pack(
        self, examples: Sequence[Encoded], segments: int | None
    ) -> tuple[list[Rows], list[Place]]:
        at_once = TOKENS_AT_ONCE[target().platform]
        labels = len(self._labels)
        return pack(examples, self._kind, labels, tokens_at_once=at_once, segments=segments)


def _fitting(
    params: Mapping[str, np.ndarray], shapes: Mapping[str, jax.ShapeDtypeStruct]
) -> dict[str, np.ndarray]:
    """Return the parameters that the model has with the same shape, in float32."""
    fitting: dict[str, np.ndarray] = {}
    for name, wanted in shapes.items():
        given = np.shape(params[name]) if name in params else None
        if given == wanted.shape:
            fitting[name] = np.asarray(params[name], np.float32)
        elif params and not name.startswith(("classifier.", "head.")):
            raise InputError(f"{name} is {given}, and the model's is {wanted.shape}")
    return fitting


def _targets_of(kind: Kind, example: Encoded) -> int:
    """Count the terms of the loss for one example."""
    return int((example.targets != IGNORED).sum()) if kind == "tagging" else example.targets.size


def _logits(graph: nnx.GraphDef, kind: Kind, params: Parameters, rows: Rows) -> jax.Array:
    """Return the logits of one pass, `[B, S, labels]` or (tagging) `[B, L, labels]`."""
    model = merge(graph, params)
    arrays = rows.tokens, rows.segment_ids, rows.positions
    return model(*arrays) if kind == "tagging" else model(*arrays, rows.targets.shape[1])


def _step(
    logits: Logits,
    kind: Kind,
    optimizer: optax.GradientTransformation,
    state: State,
    rows: Rows,
    count: jax.Array,
    learning_rate: jax.Array,
) -> tuple[State, jax.Array]:
    """Take one step on passes of rows `[P, B, L]`, and return the loss before it."""

    def loss(params: Parameters, rows: Rows) -> jax.Array:
        return _summed_loss(kind, logits(params, rows), rows.targets) / count

    def one_pass(total: tuple, rows: Rows) -> tuple[tuple, None]:
        return jax.tree.map(jnp.add, total, jax.value_and_grad(loss)(state.params, rows)), None

    if rows.tokens.shape[0] == 1:
        value, grads = jax.value_and_grad(loss)(state.params, jax.tree.map(lambda x: x[0], rows))
    else:
        nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, state.params)
        (value, grads), _ = lax.scan(one_pass, nothing, rows)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    params = jax.tree.map(lambda p, u: p - learning_rate * u, state.params, updates)
    return State(params, opt_state), value


def _summed_loss(kind: Kind, logits: jax.Array, targets: np.ndarray | jax.Array) -> jax.Array:
    """Sum the cross-entropies (multi_label: binary, of every label) wherever there is a target."""
    if kind == "multi_label":
        losses = optax.sigmoid_binary_cross_entropy(logits, jnp.maximum(targets, 0))
        return jnp.where(targets >= 0, losses, 0).sum()
    classes = jnp.maximum(targets, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    return jnp.where(targets >= 0, losses, 0).sum()


def _predict(logits: Logits, kind: Kind, params: Parameters, rows: Rows) -> jax.Array:
    """Choose a class `[B, S]`, a tag `[B, L]`, or the labels that hold `[B, S, labels]`."""
    x = logits(params, rows)
    return x > 0 if kind == "multi_label" else jnp.argmax(x, axis=-1)


def pack(
    examples: Sequence[Encoded],
    kind: Kind,
    labels: int,
    *,
    tokens_at_once: int,
    segments: int | None = None,
) -> tuple[list[Rows], list[Place]]:
    """Pack examples into passes with equally many rows, of few different shapes.

    Every shape is compiled anew, so lengths and numbers are rounded up.

    Args:
      labels: number of labels.
      tokens_at_once: positions of a pass, unless one example has more.
      segments: S; None for as many as needed, rounded up to a power of two.

    Returns:
      The passes, and the place of each example, with rows counted over all passes.
    """
    lengths = [len(e.tokens) for e in examples]
    mean_row = round_up(SHARED_BY * sum(lengths) // len(lengths))
    row_length = shared_row_length(lengths, max(SHARED_ROW, mean_row))
    rows = assign([e.tokens for e in examples], row_length)
    wanted, most = round_up(len(rows), 1), max(1, tokens_at_once // row_length)
    rows_per_pass = -(-wanted // -(-wanted // most))
    rows += [[] for _ in range(-len(rows) % rows_per_pass)]
    segments = segments or 1 << (max(map(len, rows)) - 1).bit_length()
    batch = fill_rows([[examples[i].tokens for i in row] for row in rows], row_length)
    if kind == "multi_label":
        targets = np.full((len(rows), segments, labels), -1, np.float32)
    else:
        width = row_length if kind == "tagging" else segments
        targets = np.full((len(rows), width), IGNORED, np.int32)
    places = [Place(0, 0, 0)] * len(examples)
    for r, row in enumerate(rows):
        start = 0
        for segment, i in enumerate(row):
            places[i] = Place(r, segment, start)
            inside = slice(start, start + lengths[i]) if kind == "tagging" else segment
            targets[r, inside] = examples[i].targets
            start += lengths[i]
    arrays = (batch.tokens, batch.segment_ids, batch.positions, targets)
    starts = range(0, len(rows), rows_per_pass)
    return [Rows(*(x[r : r + rows_per_pass] for x in arrays)) for r in starts], places


def shared_row_length(lengths: Sequence[int], most: int) -> int:
    """Return the row length for examples of these lengths: `most`, if none is longer."""
    return max(round_up(max(lengths)), min(round_up(sum(lengths)), most))


def round_up(count: int, least: int = 64) -> int:
    """Round up to one of few numbers: multiples of `least`, later two for each power of two."""
    step = max(least, 2 ** (count.bit_length() - 2))
    return -(-count // step) * step
