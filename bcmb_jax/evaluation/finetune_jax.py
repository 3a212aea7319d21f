# SPDX-License-Identifier: Apache-2.0
"""Fine-tune in JAX on packed rows, which give what a padded batch gives, without its padding."""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from bcmb_jax.data.rows import assign, fill_rows
from bcmb_jax.device import compute_dtype, products_in, target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import IGNORED, Encoded, as_labels
from bcmb_jax.evaluation.examples import Kind
from bcmb_jax.evaluation.protocol import Predicted, Settings
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
        multi_label `[B, S, labels]`, float32.
    """

    tokens: np.ndarray | jax.Array
    segment_ids: np.ndarray | jax.Array
    positions: np.ndarray | jax.Array
    targets: np.ndarray | jax.Array


State = tuple[Parameters, optax.OptState]


class JaxClassifier:
    """A ModernBERT with a classification head; a `protocol.Classifier`.

    Args:
      params: parameters by checkpoint name; if empty, `reset` draws all. A classifier among them is
        kept if it has as many labels as `head`; otherwise `reset` draws one.
      precision: of the matrix products, a key of `device.PRECISIONS`.
      class_weights: how much the loss of an example with each label counts (multi_label: that of
        the label where it holds); empty for 1 each.

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
        precision: str,
        settings: Settings,
        class_weights: Sequence[float] = (),
    ):
        self._class_weights = np.array(class_weights or (1.0,) * len(head.labels), np.float32)
        self._kind, self._labels = kind, head.labels
        self._batch_size, self._precision = settings.batch_size, precision
        dtype = compute_dtype(precision)
        self._make = functools.partial(MODELS[head.kind], config, head, dtype=dtype)
        self._graph, self._shapes = split(lambda: self._make(rngs=nnx.Rngs(0)))
        self._given = _fitting(params, self._shapes)
        # The learning rate is an argument of each step, so it is not part of the chain.
        self._optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(0.9, 0.999, 1e-8),
            optax.add_decayed_weights(settings.weight_decay, weight_decay_mask),
        )
        self._begin = jax.jit(lambda params: (params, self._optimizer.init(params)))
        self._step = jax.jit(self._updated, donate_argnums=0)
        self._predict = jax.jit(self._choices)
        self._score = jax.jit(self._logits)
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
        passes, _ = pack(examples, self._kind, segments=self._batch_size)
        rows = jax.tree.map(lambda *x: np.stack(x), *passes)
        count = max(1, sum(int((e.targets != IGNORED).sum()) for e in examples))
        with products_in(self._precision):
            self._state, loss = self._step(self._state, rows, float(count), learning_rate)
        return loss

    def predict(self, examples: Sequence[Encoded]) -> Predicted:
        """Predict the labels of examples."""
        passes, places = pack(examples, self._kind)
        with products_in(self._precision):
            rows = np.concatenate([self._predict(self._state[0], x) for x in passes])
        predicted = []
        for (row, segment, start), example in zip(places, examples, strict=True):
            choice = rows[row, start:] if self._kind == "tagging" else rows[row, segment]
            predicted.append(as_labels(self._kind, self._labels, choice, example))
        return predicted

    def probabilities(self, examples: Sequence[Encoded]) -> np.ndarray:
        """Return how probable each label is where several may hold (multi_label), `[N, labels]`."""
        passes, places = pack(examples, self._kind)
        with products_in(self._precision):
            rows = np.concatenate([self._score(self._state[0], x) for x in passes])
        logits = np.stack([rows[row, segment] for row, segment, _ in places])
        return np.asarray(jax.nn.sigmoid(logits))

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copy the weights to the host."""
        # Copies: on a CPU the host's view would be of a buffer that the next step takes.
        return {name: np.array(x) for name, x in self._state[0].items()}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Put back the weights of a snapshot, with a fresh optimizer."""
        # Copies for the same reason.
        self._state = self._begin({name: jnp.array(x) for name, x in snapshot.items()})

    def _logits(self, params: Parameters, rows: Rows) -> jax.Array:
        """Return the logits of one pass, `[B, S, labels]` or (tagging) `[B, L, labels]`."""
        examples = () if self._kind == "tagging" else (rows.targets.shape[1],)
        return merge(self._graph, params)(*rows[:3], *examples)

    def _summed_loss(self, params: Parameters, rows: Rows, count: jax.Array) -> jax.Array:
        """Sum the cross-entropies (multi_label: binary, of every label) wherever a target is."""
        logits, targets = self._logits(params, rows), jnp.maximum(rows.targets, 0)
        if self._kind == "multi_label":
            losses = optax.sigmoid_binary_cross_entropy(logits, targets)
            losses *= jnp.where(targets > 0, jnp.expand_dims(self._class_weights, (0, 1)), 1)
        else:
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, targets)
            losses *= jnp.asarray(self._class_weights)[targets]
        return jnp.where(rows.targets >= 0, losses, 0).sum() / count

    def _updated(
        self, state: State, rows: Rows, count: jax.Array, learning_rate: jax.Array
    ) -> tuple[State, jax.Array]:
        """Take one step on passes of rows `[P, B, L]`, and return the loss before it."""
        params, opt_state = state

        def gradient(rows: Rows) -> tuple[jax.Array, Parameters]:
            return jax.value_and_grad(self._summed_loss)(params, rows, count)

        def one_pass(total: tuple, rows: Rows) -> tuple[tuple, None]:
            return jax.tree.map(jnp.add, total, gradient(rows)), None

        if rows.tokens.shape[0] == 1:
            loss, grads = gradient(jax.tree.map(lambda x: x[0], rows))
        else:
            nothing = jnp.zeros(()), jax.tree.map(jnp.zeros_like, params)
            (loss, grads), _ = lax.scan(one_pass, nothing, rows)
        updates, opt_state = self._optimizer.update(grads, opt_state, params)
        return (jax.tree.map(lambda p, u: p - learning_rate * u, params, updates), opt_state), loss

    def _choices(self, params: Parameters, rows: Rows) -> jax.Array:
        """Choose a class `[B, S]`, a tag `[B, L]`, or the labels that hold `[B, S, labels]`."""
        logits = self._logits(params, rows)
        return logits > 0 if self._kind == "multi_label" else jnp.argmax(logits, axis=-1)


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


def pack(
    examples: Sequence[Encoded], kind: Kind, *, segments: int | None = None
) -> tuple[list[Rows], list[tuple[int, int, int]]]:
    """Pack examples into passes with equally many rows, of few different shapes.

    Every shape is compiled anew, so lengths and numbers are rounded up.

    Args:
      segments: S; None for as many as needed, rounded up to a power of two.

    Returns:
      The passes, and the place of each example: its row, counted over all passes, its number in the
      row, and its first position.
    """
    lengths = [len(e.tokens) for e in examples]
    mean_row = round_up(SHARED_BY * sum(lengths) // len(lengths))
    row_length = shared_row_length(lengths, max(SHARED_ROW, mean_row))
    rows = assign([e.tokens for e in examples], row_length)
    wanted, most = round_up(len(rows), 1), max(1, TOKENS_AT_ONCE[target().platform] // row_length)
    rows_per_pass = -(-wanted // -(-wanted // most))
    rows += [[] for _ in range(-len(rows) % rows_per_pass)]
    segments = segments or 1 << (max(map(len, rows)) - 1).bit_length()
    batch = fill_rows([[examples[i].tokens for i in row] for row in rows], row_length)
    first = examples[0].targets
    shape = (row_length,) if kind == "tagging" else (segments, *first.shape)
    targets = np.full((len(rows), *shape), IGNORED, first.dtype)
    places = [(0, 0, 0)] * len(examples)
    for r, row in enumerate(rows):
        start = 0
        for segment, i in enumerate(row):
            places[i] = r, segment, start
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
