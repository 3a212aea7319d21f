# SPDX-License-Identifier: Apache-2.0
"""Fine-tuning in JAX, on packed rows: what the padded batch would give, without its padding."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import lax

from bcmb_jax.data.rows import assign, fill_rows
from bcmb_jax.device import target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import IGNORED, Encoded
from bcmb_jax.evaluation.examples import Kind
from bcmb_jax.evaluation.protocol import Predicted
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head
from bcmb_jax.model.parameters import Parameters, init_parameters, merge, split
from bcmb_jax.optimizer import decays

LONGEST = 2048
"""A batch is one row of up to so many tokens, else rows at least as long."""
TOKENS_AT_ONCE = {"cpu": 8_192, "gpu": 65_536, "tpu": 65_536}
"""Positions that a pass works on at once; larger batches pass in turn, their gradients added."""


class Rows(NamedTuple):
    """Packed examples, `M` passes of `B` rows of `L` tokens with up to `S` examples each."""

    tokens: Any  # [M, B, L], as `Batch` has them
    segment_ids: Any
    positions: Any
    targets: Any
    """int32, `IGNORED` where there is none: single_label `[M, B, S]`, tagging `[M, B, L]`;
    multi_label: float32 `[M, B, S, labels]`, negative where there is none."""


class State(NamedTuple):
    params: Parameters
    opt_state: Any


class JaxClassifier:
    """A ModernBERT under a classifier; a `protocol.Classifier`.

    Args:
      params: by checkpoint name. A classifier among them that has these labels' number is kept,
        else `reset` draws one.
      dtype: of the matrix products.

    Raises:
      InputError: the encoder's parameters are missing or of other sizes.
    """

    def __init__(
        self,
        config: ModelConfig,
        head: Head,
        params: Mapping[str, Any],
        *,
        kind: Kind,
        dtype: jnp.dtype,
        batch_size: int,
        weight_decay: float,
    ):
        self._kind, self._labels = kind, len(head.labels)
        self._segments = batch_size
        self._make = functools.partial(MODELS[head.kind], config, head, dtype=dtype)
        graph, self._shapes = split(lambda: self._make(rngs=nnx.Rngs(0)))
        self._given = _fitting(params, self._shapes)
        optimizer = optax.chain(
            optax.clip_by_global_norm(1.0),
            optax.scale_by_adam(0.9, 0.999, 1e-8),
            optax.add_decayed_weights(weight_decay, decays),
        )
        logits = functools.partial(_logits, graph, kind, batch_size)
        self._begin = jax.jit(lambda params: State(params, optimizer.init(params)))
        self._step = jax.jit(functools.partial(_step, logits, kind, optimizer), donate_argnums=0)
        self._predict = jax.jit(lambda params, rows: _predict(logits, kind, params, rows))
        self._state: State

    def reset(self, seed: int) -> None:
        missing = self._shapes.keys() - self._given.keys()

        def fresh() -> Parameters:
            params = init_parameters(lambda: self._make(rngs=nnx.Rngs(seed)))
            return {name: params[name] for name in missing}

        new = jax.device_get(jax.jit(fresh)()) if missing else {}
        self.restore(self._given | new)

    def step(self, examples: Sequence[Encoded], learning_rate: float) -> jax.Array:
        rows, _ = self._pack(examples)
        count = max(1, sum(_targets_of(self._kind, e) for e in examples))
        self._state, loss = self._step(self._state, rows, float(count), learning_rate)
        return loss

    def predict(self, examples: Sequence[Encoded]) -> Predicted:
        predicted: Predicted = [()] * len(examples)
        # Neighbours in length together: rows fill well, and few shapes are compiled.
        order = np.argsort([-len(e.tokens) for e in examples], kind="stable")
        for first in range(0, len(order), self._segments):
            chosen = order[first : first + self._segments]
            rows, places = self._pack([examples[i] for i in chosen])
            outputs = np.asarray(self._predict(self._state.params, rows))
            for i, place in zip(chosen, places, strict=True):
                predicted[i] = self._read(outputs, place, examples[i])
        return predicted

    def snapshot(self) -> dict[str, np.ndarray]:
        # Copies: on a CPU the host's view would be of a buffer that the next step takes.
        return {name: np.array(x) for name, x in self._state.params.items()}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        # Copies for the same reason.
        self._state = self._begin({name: jnp.array(x) for name, x in snapshot.items()})

    def _pack(self, examples: Sequence[Encoded]) -> tuple[Rows, list["Place"]]:
        """Rows of few different shapes, and where each example lies in them."""
        lengths = [len(e.tokens) for e in examples]
        row_length = max(_rounded(max(lengths)), min(_rounded(sum(lengths)), LONGEST))
        of_rows = assign([e.tokens for e in examples], row_length)
        at_once = max(1, TOKENS_AT_ONCE[target().platform] // row_length)
        rows = min(len(of_rows), at_once)
        passes = -(-len(of_rows) // rows)
        of_rows += [[] for _ in range(passes * rows - len(of_rows))]
        batch = fill_rows([[examples[i].tokens for i in row] for row in of_rows], row_length)
        targets = self._no_targets(len(of_rows), row_length)
        places = [Place(0, 0, 0)] * len(examples)
        for r, row in enumerate(of_rows):
            start = 0
            for segment, i in enumerate(row):
                places[i] = Place(r, segment, start)
                length = lengths[i]
                inside = slice(start, start + length) if self._kind == "tagging" else segment
                targets[r, inside] = examples[i].targets
                start += length
        arrays = (batch.tokens, batch.segment_ids, batch.positions, targets)
        return Rows(*(x.reshape(passes, rows, *x.shape[1:]) for x in arrays)), places

    def _no_targets(self, rows: int, length: int) -> np.ndarray:
        if self._kind == "multi_label":
            return np.full((rows, self._segments, self._labels), -1, np.float32)
        width = length if self._kind == "tagging" else self._segments
        return np.full((rows, width), IGNORED, np.int32)

    def _read(self, outputs: np.ndarray, place: "Place", example: Encoded) -> tuple[int, ...]:
        row = outputs.reshape(-1, *outputs.shape[2:])[place.row]
        if self._kind == "tagging":
            tags = row[place.start : place.start + len(example.tokens)]
            outside = self._labels - 1
            return tuple(int(tags[s]) if s >= 0 else outside for s in example.starts)
        if self._kind == "multi_label":
            return tuple(np.flatnonzero(row[place.segment]).tolist())
        return (int(row[place.segment]),)


class Place(NamedTuple):
    """Of an example: its row, its number there, and the position of its first token."""

    row: int
    segment: int
    start: int


def _fitting(params: Mapping[str, Any], shapes: Mapping[str, Any]) -> dict[str, np.ndarray]:
    fitting = {}
    for name, wanted in shapes.items():
        found = np.shape(params[name]) if name in params else None
        if found == wanted.shape:
            fitting[name] = np.asarray(params[name], np.float32)
        elif not name.startswith(("classifier.", "head.")):
            raise InputError(f"{name} is {found}, and the model's is {wanted.shape}")
    return fitting


def _rounded(length: int) -> int:
    """The next of a few lengths: four between one power of two and the next, from 64 on."""
    step = max(64, 2 ** (length.bit_length() - 3))
    return -(-length // step) * step


def _targets_of(kind: Kind, example: Encoded) -> int:
    """How many terms the loss has for it."""
    return int((example.targets != IGNORED).sum()) if kind == "tagging" else example.targets.size


def _logits(graph: nnx.GraphDef, kind: Kind, segments: int, params: Parameters, rows: Rows):
    """`[B, S, labels]` or (tagging) `[B, L, labels]` of the rows of one pass."""
    model = merge(graph, params)
    arrays = rows.tokens, rows.segment_ids, rows.positions
    return model(*arrays) if kind == "tagging" else model(*arrays, num_segments=segments)


def _step(
    logits: Any,
    kind: Kind,
    optimizer: optax.GradientTransformation,
    state: State,
    rows: Rows,
    count: jax.Array,
    learning_rate: jax.Array,
) -> tuple[State, jax.Array]:
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


def _summed_loss(kind: Kind, logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Cross-entropy, or binary cross-entropy of every label, over what has a target."""
    if kind == "multi_label":
        losses = optax.sigmoid_binary_cross_entropy(logits, jnp.maximum(targets, 0))
        return jnp.where(targets >= 0, losses, 0).sum()
    classes = jnp.maximum(targets, 0)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
    return jnp.where(targets >= 0, losses, 0).sum()


def _predict(logits: Any, kind: Kind, params: Parameters, rows: Rows) -> jax.Array:
    """The class or tag, `[M, B, S]` or `[M, B, L]`, or which labels hold, `[M, B, S, labels]`."""

    def one_pass(rows: Rows) -> jax.Array:
        x = logits(params, rows)
        return x > 0 if kind == "multi_label" else jnp.argmax(x, axis=-1)

    return lax.map(one_pass, rows)
