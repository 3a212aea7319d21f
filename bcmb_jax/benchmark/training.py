# SPDX-License-Identifier: Apache-2.0
"""Training steps, optimizer and all: documents of one length, and of real lengths, where padded
batches of the peer stand beside packed rows of ours."""

import functools
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.result import OURS, result
from bcmb_jax.benchmark.roofline import matmul_ceiling
from bcmb_jax.benchmark.timing import race
from bcmb_jax.benchmark.torch_peer import LABELS, fastest_peer
from bcmb_jax.checkpoint import TrainState
from bcmb_jax.data.rows import packed, padded
from bcmb_jax.evaluation.packing import shared_row_length
from bcmb_jax.evaluation.speed import random_documents
from bcmb_jax.masking import MaskingRule
from bcmb_jax.metrics import forward_flops_per_token
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import MODELS, Head, ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, init_parameters, merge, split
from bcmb_jax.optimizer import decays, stable_adamw
from bcmb_jax.precision import DTYPES
from bcmb_jax.profiling import record
from bcmb_jax.train import train_step

Steps = tuple[TrainState, Any, dict[str, Any]]
"""A state, the jitted step, and jitted parts of it by name."""

MASK_RATE = 0.3


def cases(
    config: ModelConfig,
    *,
    size: str,
    precision: str,
    shapes: list[tuple[int, int]],
    real: tuple[str, list[np.ndarray]] | None,
    head: str,
    documents_per_step: int,
    steps: int,
    row_length: int,
    ways: list[str],
    rounds: int,
    burst: int,
    implementation: str,
    remat: bool,
    profile: Path | None,
) -> Iterator[dict[str, Any]]:
    """A result for each of `shapes` (rows, length), or for the `real` documents `(name, tokens)`.

    Args:
      head: "masked_lm" (30 % masked), "sequence_classification" or "token_classification".
      documents_per_step, steps, row_length: of the real documents; a longer one makes longer rows.
      profile: a folder for a trace of one call more, of which a table is printed.
    """
    dtype = DTYPES[precision]
    ceiling = matmul_ceiling(dtype)
    make = functools.partial(
        MODELS[head], config, _head(head), dtype=dtype, implementation=implementation, remat=remat
    )
    if real is None:
        work = [
            (f"{rows}x{length}", [random_documents(np.full(rows, length))], "rows")
            for rows, length in shapes
        ]
    else:
        name, tokens = real
        needed = documents_per_step * steps
        chunks = [tokens[i : i + documents_per_step] for i in range(0, needed, documents_per_step)]
        work = [(name, chunks, "packed")]
    for name, chunks, layout in work:
        lengths = np.array([len(document) for chunk in chunks for document in chunk])
        theirs = [padded(chunk, max(map(len, chunk))) for chunk in chunks]
        ours = theirs if layout == "rows" else [pack(chunk, row_length) for chunk in chunks]
        train = Trainer(make, head, ours)
        competed: list[str] = []
        peer: dict[str, Callable[[], None]] = {}
        if ways:
            peer_name, run, competed = fastest_peer(
                config,
                head,
                [(batch, labels(batch, head)) for batch in theirs],
                precision=precision,
                ways=ways,
                train=True,
            )
            peer = {peer_name: run}
        parts = train.passes() if layout == "rows" and head == "masked_lm" else {}
        times = race({OURS: train, **parts, **peer}, rounds, burst)
        seconds = {name: statistics.median(times.pop(name)) for name in parts}
        if parts:
            seconds["gradient_over_forward"] = seconds["gradient"] / seconds["forward"]
        if profile:
            print(record(profile, train, train.texts()))
        predicted = MASK_RATE if head == "masked_lm" else 0.0
        flops = 3 * forward_flops_per_token(config, lengths, predicted) * lengths.sum()
        yield result(
            f"training {size} {precision} {head} {name}, {len(chunks)} steps",
            int(lengths.sum()),
            times,
            flops=flops,
            ceiling=matmul_ceiling(dtype, before=ceiling),
            size=size,
            precision=precision,
            attention=implementation,
            peers=competed,
            head=head,
            layout=layout,
            documents=len(lengths),
            remat=remat,
            filled=float(lengths.sum() / sum(b.tokens.size for b in ours)),
            peer_filled=float(lengths.sum() / sum(b.tokens.size for b in theirs)),
            seconds_to_compile=train.seconds_to_compile,
            **train.memory(),
            **seconds,
        )


class Trainer:
    """Steps over a few batches; calling it runs each once and returns when they are done."""

    def __init__(self, make: Callable[..., Any], head: str, batches: list[Batch]):
        self._batches = jax.device_put(batches)
        documents = max(int(batch.segment_ids.max()) for batch in batches)
        of_head = functools.partial(_classifier, head=head, documents=documents)
        self._state, step, self._parts = (_masked_lm if head == "masked_lm" else of_head)(make)
        self._steps: dict[tuple[int, ...], Any] = {}
        self.seconds_to_compile = 0.0
        for batch in batches:
            shape = batch.tokens.shape
            if shape not in self._steps:
                start = time.perf_counter()
                self._steps[shape] = step.lower(self._state, batch).compile()
                self.seconds_to_compile += time.perf_counter() - start

    def __call__(self) -> None:
        for batch in self._batches:
            self._state, loss = self._steps[batch.tokens.shape](self._state, batch)
        jax.block_until_ready(loss)

    def passes(self) -> dict[str, Callable[[], object]]:
        """The loss alone, and with its gradient, of the first batch, without the optimizer."""

        def run(part: Any) -> Callable[[], object]:
            compiled = part.lower(self._state, self._batches[0]).compile()
            return lambda: jax.block_until_ready(compiled(self._state, self._batches[0]))

        return {name: run(part) for name, part in self._parts.items()}

    def texts(self) -> list[str]:
        return [step.as_text() for step in self._steps.values()]

    def memory(self) -> dict[str, int]:
        """Bytes of the largest step: its state, and what it needs beside it."""
        analyses = [step.memory_analysis() for step in self._steps.values()]
        return {
            "state_bytes": analyses[0].alias_size_in_bytes,
            "temporary_bytes": max(x.temp_size_in_bytes for x in analyses),
        }


def _masked_lm(
    make: Callable[..., ModernBertForMaskedLM],
) -> Steps:
    """The training step of `bcmb_jax.train`, as it is."""
    graph, _ = split(lambda: make(rngs=nnx.Rngs(0)))
    optimizer = stable_adamw(max_lr=1e-4, decay_mask=decays)
    rule = MaskingRule(MASK_RATE, 4, (0, 1, 2, 3, 4), np.arange(100, 16_000))
    step = functools.partial(train_step, graph=graph, optimizer=optimizer, rule=rule, seed=0)

    def run(state: TrainState, batch: Batch):
        return step(state, Batch(*(x[None] for x in batch)), 1e-4)

    def one(state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        state, metrics = run(state, batch)
        return state, metrics.loss

    # What a result does not need is not computed: here the optimizer, or all gradients.
    parts = {
        "forward": jax.jit(lambda *x: run(*x)[1].loss),
        "gradient": jax.jit(lambda *x: run(*x)[1].grad_norm),
    }

    return _fresh(make, optimizer), jax.jit(one, donate_argnums=0), parts


def _classifier(make: Callable[..., Any], head: str, documents: int) -> Steps:
    """Cross-entropy of documents or tokens, and AdamW."""
    graph, _ = split(lambda: make(rngs=nnx.Rngs(0)))
    optimizer = optax.adamw(1e-4, weight_decay=1e-2)

    def one(state: TrainState, batch: Batch) -> tuple[TrainState, jax.Array]:
        def loss(params: Parameters) -> jax.Array:
            model = merge(graph, params)
            arrays = batch.tokens, batch.segment_ids, batch.positions
            if head == "sequence_classification":
                logits = model(*arrays, num_segments=documents)
                segment = jnp.arange(1, documents + 1)[None]
                present = segment <= batch.segment_ids.max(1, keepdims=True)
            else:
                logits = model(*arrays)
                present = batch.segment_ids > 0
            classes = jnp.zeros(logits.shape[:2], jnp.int32)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, classes)
            return (losses * present).sum() / present.sum()

        value, grads = jax.value_and_grad(loss)(state.params)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        return TrainState(optax.apply_updates(state.params, updates), opt_state), value

    return _fresh(make, optimizer), jax.jit(one, donate_argnums=0), {}


def _fresh(make: Callable[..., Any], optimizer: optax.GradientTransformation) -> TrainState:
    def init() -> TrainState:
        params = init_parameters(lambda: make(rngs=nnx.Rngs(0)))
        return TrainState(params, optimizer.init(params))

    return jax.jit(init)()


def pack(documents: list[np.ndarray], row_length: int) -> Batch:
    """As few rows as the documents of a batch need, of the length that fine-tuning would give."""
    return packed(documents, shared_row_length([*map(len, documents)], row_length))


def labels(batch: Batch, head: str) -> np.ndarray:
    """For the peer: as many labelled places as we have, random or all the same class."""
    if head == "sequence_classification":
        return np.zeros(len(batch.tokens), int)
    if head == "token_classification":
        return np.where(batch.segment_ids > 0, 0, -100)
    masked = np.random.default_rng(0).random(batch.tokens.shape) < MASK_RATE
    return np.where(masked & (batch.segment_ids > 0), batch.tokens, -100)


def _head(kind: str) -> Head:
    classifies = kind.endswith("_classification")
    return Head(kind, tuple(f"LABEL_{i}" for i in range(LABELS)) if classifies else ())
