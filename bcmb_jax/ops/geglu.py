# SPDX-License-Identifier: Apache-2.0
"""GeGLU, `gelu(a) · b`.

On NVIDIA GPUs, in bf16, its gradient is a kernel. XLA writes the gradients of `a` and `b` side by
side, as the product behind them takes them, in a loop for each, both of which compute the error
function; the kernel computes it once.
"""

import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float

from bcmb_jax.device import BATCH_AXES
from bcmb_jax.ops.linear import accumulation_dtype
from bcmb_jax.ops.triton import is_a_kernel, map_tokens, on_each_device, pieces

TOKENS_PER_BLOCK = 16  # tokens handled by one Triton program
MAX_PIECE = 128


def gelu(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """Return the exact GELU of ModernBERT, by erf as in PyTorch.

    `jax.nn.gelu` takes twice the time with erfc, or approximates.
    """
    return 0.5 * x * (1.0 + lax.erf(x * math.sqrt(0.5)))


def geglu(
    inner: Float[Array, "B L 2 F"], dtype: jnp.dtype, activation: str = "gelu"
) -> Float[Array, "B L F"]:
    """Return `gelu(a) · b` in `dtype`, `a` before `b` in `inner`; computed in fp32.

    Args:
      activation: "gelu", or "silu" for `silu(a) · b`, which has no kernel.
    """
    if activation == "gelu" and is_a_kernel(inner.dtype, inner.shape[-1]):
        return with_kernel(inner, dtype)
    return _glu(inner, dtype, {"gelu": gelu, "silu": jax.nn.silu}[activation])


def _glu(inner: Array, dtype: jnp.dtype, activation: Callable[[Array], Array] = gelu) -> Array:
    halves = jnp.split(inner.astype(accumulation_dtype(dtype)), 2, axis=-2)
    activated, gate = (y.squeeze(-2) for y in halves)
    return (activation(activated) * gate).astype(dtype)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def with_kernel(inner: Float[Array, "B L 2 F"], dtype: jnp.dtype) -> Float[Array, "B L F"]:
    """Return the result of `geglu`, with the kernel as its gradient."""
    return _glu(inner, dtype)


def _backward(_: jnp.dtype, inner: Array, dout: Array) -> tuple[Array]:
    halves, whole = P(BATCH_AXES, None, None, "tensor"), P(BATCH_AXES, None, "tensor")
    return (on_each_device(_gradient, (halves, whole), halves)(inner, dout),)


with_kernel.defvjp(lambda inner, dtype: (with_kernel(inner, dtype), inner), _backward)


def _gradient(
    inner: Float[Array, "B L 2 F"], dout: Float[Array, "B L F"]
) -> Float[Array, "B L 2 F"]:
    _, parts = pieces(inner.shape[-1], MAX_PIECE)
    (dinner,) = map_tokens(
        _gradient_kernel, "geglu_gradient", TOKENS_PER_BLOCK, (inner, dout), (inner,), parts=parts
    )
    return dinner


def _gradient_kernel(
    inner_ref: Float[jax.Ref, "T 2 N"],
    dout_ref: Float[jax.Ref, "T N"],
    dinner_ref: Float[jax.Ref, "T 2 N"],
) -> None:
    """Compute the gradient of a block of `T` tokens and `N` of their elements."""
    a, b, dout = (x.astype(jnp.float32) for x in (inner_ref[:, 0], inner_ref[:, 1], dout_ref[...]))
    bell = jnp.exp(-0.5 * a * a)
    below = _normal_cdf(a, bell)
    slope = below + a * bell / math.sqrt(2 * math.pi)
    dinner_ref[:, 0] = (dout * b * slope).astype(dinner_ref.dtype)
    dinner_ref[:, 1] = (dout * a * below).astype(dinner_ref.dtype)


def _normal_cdf(x: Array, bell: Array) -> Array:
    """Return `(1 + erf(x / √2)) / 2`, within 3e-7, from `bell`, `exp(-x² / 2)`.

    Abramowitz and Stegun 7.1.26; Triton's lowering knows no erf.
    """
    t = 1.0 / (1.0 + 0.3275911 * math.sqrt(0.5) * jnp.abs(x))
    tail = 0.5 * 1.061405429 * t
    for coefficient in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail = (tail + 0.5 * coefficient) * t
    tail = tail * bell
    return jnp.where(x < 0, tail, 1.0 - tail)
