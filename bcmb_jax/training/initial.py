# SPDX-License-Identifier: Apache-2.0
"""Weights that a run is given to start from, and what makes them unfit for it."""

import logging
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import optax

from bcmb_jax.agreements import Agreements
from bcmb_jax.config import RunConfig
from bcmb_jax.data.corpus import Corpus
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.parameters import Parameters
from bcmb_jax.optimizer import StableAdamWState
from bcmb_jax.training.checkpoint import TrainState
from bcmb_jax.training.faults import good_health

log = logging.getLogger(__name__)


class Initial(NamedTuple):
    """Weights to start from in place of fresh ones: host arrays by checkpoint name."""

    params: dict[str, np.ndarray]
    opt_state: StableAdamWState | None
    tokenizer: Path | None = None
    """The folder of the tokenizer that the weights were trained with, if that is known."""
    model: ModelConfig | None = None
    """The configuration of the model they are from, if that is known."""
    agreements: Agreements = ()
    """The agreements of all data that the weights were trained on."""


def check_initial(initial: Initial, config: RunConfig, shapes: Parameters, corpus: Corpus) -> None:
    """Refuse weights of another model or tokenizer than the run's.

    Args:
      shapes: the run's parameters, as arrays or their descriptions.

    Raises:
      InputError: the message names both tokenizers, the first tensor, or the constant.
    """
    origin = config.init_from
    _check_tokenizer(initial, corpus, origin)
    if initial.model is not None:
        check_constants(initial.model, config.model, origin)
    given = {name: tuple(x.shape) for name, x in initial.params.items()}
    wanted = {name: tuple(x.shape) for name, x in shapes.items()}
    wrong = [name for name in sorted(given | wanted) if given.get(name) != wanted.get(name)]
    if wrong:
        name = wrong[0]
        raise InputError(
            f"init_from {origin} does not fit the model: {len(wrong)} tensors differ, first {name} "
            f"is {given.get(name)} there and {wanted.get(name)} here; leave --config.model.* out "
            "to take its sizes"
        )


def place_initial(
    initial: Initial, optimizer: optax.GradientTransformation, like: TrainState
) -> TrainState:
    """Move given weights to the mesh, with their moments, step and `max_lr` if they have any.

    Args:
      like: the state as `abstract_state` describes it.
    """
    shardings = jax.tree.map(lambda x: x.sharding, like)
    params = jax.device_put(initial.params, shardings.params)
    if initial.opt_state is None:
        moments = jax.jit(optimizer.init, out_shardings=shardings.opt_state)(params)
    else:
        moments = jax.device_put(initial.opt_state, shardings.opt_state)
    return TrainState(params, moments, jax.device_put(good_health(), shardings.health))


def check_constants(theirs: ModelConfig, ours: ModelConfig, origin: str) -> None:
    """Look at what makes another model of the same tensors: thetas, window, activation.

    Another activation is refused; the rest is warned of, since training may go on with a longer
    context on purpose.

    Raises:
      InputError: the weights are of a model with another activation.
    """
    names = (
        "hidden_activation",
        "global_rope_theta",
        "local_rope_theta",
        "local_attention",
        "global_attn_every_n_layers",
        "norm_eps",
    )
    other = {name: getattr(theirs, name) for name in names}
    other = {name: value for name, value in other.items() if value != getattr(ours, name)}
    here = ", ".join(f"model.{name} {getattr(ours, name)}" for name in other)
    there = ", ".join(map(str, other.values()))
    message = f"init_from {origin} was trained with {there} where this run has {here}"
    if "hidden_activation" in other:
        raise InputError(f"{message}; set model.* to its values")
    if other:
        log.warning("%s; unless that is meant, set model.* to its values", message)


def _check_tokenizer(initial: Initial, corpus: Corpus, origin: str) -> None:
    """Refuse weights that were trained with another tokenizer than that of the data.

    Raises:
      InputError: the message names both tokenizers.
    """
    if initial.tokenizer is None:
        return
    given, wanted = load_tokenizer(str(initial.tokenizer)), corpus.tokenizer
    if given.fingerprint != wanted.fingerprint:
        raise InputError(
            f"init_from {origin} has another tokenizer (fingerprint {given.fingerprint[:12]}, "
            f"vocabulary {given.vocab_size:,}) than the data ({wanted.fingerprint[:12]}, "
            f"{wanted.vocab_size:,}): prepare the data with --tokenizer {initial.tokenizer}"
        )
