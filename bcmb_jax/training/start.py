# SPDX-License-Identifier: Apache-2.0
"""How a run starts, what it remembers of itself, and how it is told to stop."""

import functools
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh

from bcmb_jax.data.corpus import Corpus
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.model.parameters import Parameters, init_parameters
from bcmb_jax.optimizer import StableAdamWState
from bcmb_jax.sharding import optimizer_shardings, parameter_shardings
from bcmb_jax.training.checkpoint import TrainState

KEPT_KEYS = (
    "seed",
    "model",
    "precision",
    "learning_rate",
    "weight_decay",
    "mask_rate",
    "train_rows_per_step",
    "schedule",
    "data",
    "max_tokens",
)
"""Keys that decide the result of a run: a workdir keeps those it was started with."""


class Initial(NamedTuple):
    """Where to start from instead of fresh parameters; host arrays by checkpoint name."""

    params: dict[str, np.ndarray]
    opt_state: StableAdamWState | None
    tokenizer: Path | None = None
    """The folder of the tokenizer it was trained with, if that is known."""


class StopSignal:
    """Whether SIGTERM, SIGUSR1 or SIGINT has asked the run to save and stop (SIGINT again kills).

    SLURM sends such a signal before it takes the machine back (`#SBATCH --signal`). Use it with
    `with`, in the main thread; the handlers that were there come back at the end.
    """

    NUMBERS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)

    def __init__(self) -> None:
        self.requested = False

    def __enter__(self) -> "StopSignal":
        self._before = {number: signal.signal(number, self._request) for number in self.NUMBERS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _request(self, number: int, _: Any) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.default_int_handler)


def abstract_state(
    shapes: Parameters, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The training state as `jax.ShapeDtypeStruct`s with their places on the mesh."""
    placed = parameter_shardings(mesh, shapes)
    shardings = TrainState(placed, optimizer_shardings(mesh, placed))
    state = jax.eval_shape(lambda p: TrainState(p, optimizer.init(p)), shapes)
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
    )


def init_state(
    make_model: Callable[..., nnx.Module],
    optimizer: optax.GradientTransformation,
    seed: int,
    like: TrainState,
) -> TrainState:
    """Fresh parameters and moments, created where they belong."""

    def make() -> TrainState:
        params = init_parameters(functools.partial(make_model, rngs=nnx.Rngs(seed)))
        return TrainState(params, optimizer.init(params))

    return jax.jit(make, out_shardings=jax.tree.map(lambda x: x.sharding, like))()


def place_initial(
    initial: Initial, optimizer: optax.GradientTransformation, like: TrainState, origin: str
) -> TrainState:
    """The state that starts from `initial`, with its moments, step and `max_lr` if it has any.

    Raises:
      InputError: its tensors are not those of the model (`origin` names where they are from).
    """
    theirs = {name: tuple(x.shape) for name, x in initial.params.items()}
    ours = {name: x.shape for name, x in like.params.items()}
    wrong = [name for name in sorted(theirs | ours) if theirs.get(name) != ours.get(name)]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"init_from {origin} does not fit the model: {len(wrong)} tensors differ, first {name} "
            f"is {theirs.get(name)} there and {ours.get(name)} here; set model.* to its sizes"
        )
    shardings = jax.tree.map(lambda x: x.sharding, like)
    params = jax.device_put(initial.params, shardings.params)
    if initial.opt_state is None:
        return TrainState(
            params, jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
        )
    return TrainState(params, jax.device_put(initial.opt_state, shardings.opt_state))


def check_tokenizer(initial: Initial, corpus: Corpus, origin: str) -> None:
    """Refuse weights that were trained with another tokenizer than the data's.

    Raises:
      InputError: naming both tokenizers.
    """
    if initial.tokenizer is None:
        return
    theirs, ours = load_tokenizer(str(initial.tokenizer)), corpus.tokenizer
    if theirs.fingerprint != ours.fingerprint:
        raise InputError(
            f"init_from {origin} has another tokenizer (fingerprint {theirs.fingerprint[:12]}, "
            f"vocabulary {theirs.vocab_size:,}) than the data ({ours.fingerprint[:12]}, "
            f"{ours.vocab_size:,}): prepare the data with --tokenizer {initial.tokenizer}"
        )


def run_facts(config: Any, corpus: Corpus) -> dict[str, Any]:
    """What a checkpoint says of its run beside numbers and arrays; JSON."""
    return {
        "config": config.to_dict(),
        "tokenizer": {
            "fingerprint": corpus.tokenizer.fingerprint,
            "special": corpus.tokenizer.special.__dict__,
        },
        "data": {
            shards.name: {
                "fingerprint": shards.fingerprint,
                "tokens": shards.index["tokens"],
                "license": shards.index["license"],
            }
            for shards in corpus.train
        },
    }


def check_same_run(meta: Mapping[str, Any], facts: Mapping[str, Any], workdir: Path) -> None:
    """Refuse to resume a run with other data, or with keys that would make it another run."""
    if list(meta["data"].items()) != list(facts["data"].items()):  # the plan knows their order
        raise InputError(
            f"{workdir} was trained on {list(meta['data'])}, with other contents or in another "
            f"order than {list(facts['data'])} now; use another --workdir"
        )
    before, now = ({k: c["config"][k] for k in KEPT_KEYS} for c in (meta, facts))
    for key in KEPT_KEYS:
        old, new = (_comparable(config[key]) for config in (before, now))
        if old != new:
            raise InputError(
                f"{workdir} was started with {key}={old}, now it is {new}; go back to that, or "
                "start another --workdir (with --config.init_from to take the weights along)"
            )


def _comparable(value: Any) -> Any:
    """`value` as JSON gives it back; folders aside, since contents are compared."""
    if isinstance(value, Mapping):
        return {k: _comparable(v) for k, v in value.items() if k not in ("train", "validation")}
    return list(value) if isinstance(value, tuple) else value
