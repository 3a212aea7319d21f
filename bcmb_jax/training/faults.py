# SPDX-License-Identifier: Apache-2.0
"""Updates that must not be made: those with a number that is not finite, and spikes.

The decision is made inside the training step, from sums over the whole global batch, so that every
process comes to the same one. A refused update leaves parameters, moments and the optimizer's count
as they were; the step, the position in the data and the schedule go on.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

Tree = TypeVar("Tree")  # of arrays

REFUSED_IN_A_ROW = 3
"""Refused updates without one between them that stop a run."""

MEMORY = 100
"""Updates over which the gradient norm's running mean and variance are taken, and how many must be
made before a spike can be told."""


class Health(NamedTuple):
    """Counts and statistics that decide about updates: scalars, part of the training state.

    Attributes:
      skipped: updates refused since the start of training.
      in_a_row: updates refused since the last one that was made.
      made: updates made.
      mean: running mean of the logarithm of the gradient norm.
      variance: running variance of the same.
    """

    skipped: Int[Array, ""]
    in_a_row: Int[Array, ""]
    made: Int[Array, ""]
    mean: Float[Array, ""]
    variance: Float[Array, ""]


def good_health() -> Health:
    """Return the health of a run that begins."""

    # An array for each: a step is given them all to reuse, and one of them only once.
    def zero(dtype: type) -> jax.Array:
        return jnp.zeros((), dtype)

    return Health(
        skipped=zero(jnp.int32),
        in_a_row=zero(jnp.int32),
        made=zero(jnp.int32),
        mean=zero(jnp.float32),
        variance=zero(jnp.float32),
    )


def judge(
    health: Health,
    loss: Float[Array, ""],
    grad_norm: Float[Array, ""],
    predicted: Float[Array, ""],
    spike_deviations: float,
) -> tuple[Bool[Array, ""], Health]:
    """Decide about an update, and return the decision with the health after it.

    An update of StableAdamW is finite where the gradient's norm and the rate are: the norm is a sum
    of squares, so that no second moment overflows either, and a quotient is at most `|m| / ε`.

    Args:
      loss: of the whole global batch.
      predicted: tokens that the loss is a mean over. Without any there is no update to make, which
        counts neither as made nor as refused.
      spike_deviations: refuse an update whose gradient norm lies this many standard deviations
        above its running mean (both of the logarithm); 0 refuses no finite update.
    """
    finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
    log_norm = jnp.log(jnp.where(finite, jnp.maximum(grad_norm, 1e-30), 1.0))
    sound = finite
    if spike_deviations:
        limit = health.mean + spike_deviations * jnp.sqrt(health.variance)
        sound &= (health.made < MEMORY) | (log_norm <= limit)
    empty = predicted == 0
    accepted = sound & ~empty

    gain = 1.0 / jnp.minimum(health.made + 1, MEMORY)  # a plain mean at first
    change = log_norm - health.mean
    made = Health(
        health.skipped,
        jnp.zeros_like(health.in_a_row),
        health.made + 1,
        health.mean + gain * change,
        (1 - gain) * (health.variance + gain * change**2),
    )
    refused = health._replace(skipped=health.skipped + 1, in_a_row=health.in_a_row + 1)
    after = choose(accepted, made, choose(empty, health, refused))
    return accepted, after


def choose(condition: Bool[Array, ""], yes: Tree, no: Tree) -> Tree:
    """Return one of two trees of arrays, leaf by leaf."""
    chosen: Tree = jax.tree.map(lambda a, b: jnp.where(condition, a, b), yes, no)
    return chosen


def inspect(tree: Mapping[str, Any]) -> dict[str, tuple[int, bool]]:
    """Return for each array of a tree, by name, a checksum and whether all its numbers are finite.

    Any single flipped bit changes the checksum, which is the same on every mesh.
    """
    leaves = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }
    found = jax.device_get(_inspect_all(leaves))
    return {name: (int(checksum), bool(finite)) for name, (checksum, finite) in found.items()}


@jax.jit
def _inspect_all(leaves: dict[str, jax.Array]) -> dict[str, tuple[jax.Array, jax.Array]]:
    # One program: many at once, on processes with several CPU devices, take each other's messages.
    return {name: _inspect(x) for name, x in leaves.items()}


def _inspect(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    bits = lax.bitcast_convert_type(x, jnp.uint32).reshape(-1)
    checksum = jnp.sum(bits * (2 * lax.iota(jnp.uint32, bits.size) + 1), dtype=jnp.uint32)
    return checksum, jnp.all(jnp.isfinite(x))
