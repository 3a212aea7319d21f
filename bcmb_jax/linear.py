# SPDX-License-Identifier: Apache-2.0
"""The one matrix product of the model: compute-dtype operands, fp32 accumulation, in both passes.

Plain autodiff of a bf16 × bf16 → fp32 product makes its backward products fp32 × bf16, which leave
the fast kernels of every backend. So the product has its own VJP: the incoming cotangent is rounded
to the compute dtype first, as upstream's autocast does, and the weight's cotangent stays fp32.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax


def linear(x: jax.Array, weight: jax.Array, dtype: jnp.dtype, axes: int = 1) -> jax.Array:
    """Contract the last `axes` axes of `x` and `weight` (PyTorch's `[out, in]` order).

    Args:
      x: `[..., *inputs]`, any float dtype; rounded to `dtype`.
      weight: `[*outputs, *inputs]` fp32 master weight; rounded to `dtype` here, on every use.
      dtype: bfloat16, or float32 for full fp32 products (TF32 is not used).
      axes: the number of input axes.

    Returns:
      `[..., *outputs]` in `accumulator(dtype)`, float32.
    """
    return _linear(x.astype(dtype), weight, axes)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _linear(x: jax.Array, weight: jax.Array, axes: int) -> jax.Array:
    weight = weight.astype(x.dtype)
    return product(x, weight, _last(x, axes), _last(weight, axes))


def _linear_fwd(x: jax.Array, weight: jax.Array, axes: int) -> tuple[jax.Array, tuple]:
    return _linear(x, weight, axes), (x, weight)


def _linear_bwd(axes: int, residuals: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = residuals
    g = g.astype(x.dtype)
    outputs = weight.ndim - axes
    dx = product(g, weight.astype(x.dtype), _last(g, outputs), tuple(range(outputs)))
    return dx.astype(x.dtype), weight_gradient(g, x, axes).astype(weight.dtype)


_linear.defvjp(_linear_fwd, _linear_bwd)


def product(
    a: jax.Array, b: jax.Array, contract_a: tuple, contract_b: tuple, batch: tuple = ()
) -> jax.Array:
    """`lax.dot_general` over the same `batch` axes of both, accumulated and returned in
    `accumulator(a.dtype)`."""
    return lax.dot_general(
        a,
        b,
        ((contract_a, contract_b), (batch, batch)),
        precision=None if a.dtype == jnp.bfloat16 else lax.Precision.HIGHEST,
        preferred_element_type=accumulator(a.dtype),
    )


def accumulator(dtype: jnp.dtype) -> jnp.dtype:
    """What sums over products of `dtype` are kept in: fp32, or float64 for float64, in which only
    `conversion.verify` computes."""
    return jnp.promote_types(dtype, jnp.float32)


def weight_gradient(g: jax.Array, x: jax.Array, axes: int) -> jax.Array:
    """`[*outputs, *inputs]` fp32: the product of `g` `[..., *outputs]` and `x` `[..., *inputs]`
    contracted over the leading axes."""
    leading = tuple(range(x.ndim - axes))
    rows = math.prod(x.shape[: x.ndim - axes])

    def direct(g: jax.Array, x: jax.Array) -> jax.Array:
        return product(g, x, leading, leading)

    def as_matrices(g: jax.Array, x: jax.Array) -> jax.Array:
        # XLA's CPU backend: twice as fast as with several axes, and in bf16 with a transposed copy.
        g2, x2 = g.reshape(rows, -1), x.reshape(rows, -1)
        if x.dtype == jnp.float32 or rows % 2:
            dw = product(g2, x2, (0,), (0,))
        else:
            dw = product(row_major_transpose(g2), x2, (1,), (0,))
        return dw.reshape(g.shape[len(leading) :] + x.shape[len(leading) :])

    return lax.platform_dependent(g, x, cpu=as_matrices, default=direct)


def column_sums(x: jax.Array) -> jax.Array:
    """`[..., n]` fp32 summed over all but the last axis, as a product: a column reduction of XLA's
    CPU backend is a hundred times slower."""
    leading = tuple(range(x.ndim - 1))
    return product(jnp.ones(x.shape[:-1], x.dtype), x, leading, leading)


def row_major_transpose(x: jax.Array) -> jax.Array:
    """`x` `[..., m, n]` with its last two axes swapped and materialised row-major (`m` even).

    XLA's CPU backend gives a plain transpose a permuted layout, which its bf16 kernel does not
    take: the product is then upcast and runs at half the speed. A reshape resets the layout; the
    barrier keeps the compiler from folding it away.
    """
    *batch, m, n = x.shape
    pairs = jnp.swapaxes(x, -1, -2).reshape(*batch, n, m // 2, 2)
    return lax.optimization_barrier(pairs).reshape(*batch, n, m)


def _last(x: jax.Array, axes: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - axes, x.ndim))
