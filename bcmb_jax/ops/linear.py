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

from bcmb_jax.device import cpu_multiplies_bf16, on_cpu
from bcmb_jax.ops.cpu import row_major_transpose


def linear(
    x: jax.Array,
    weight: jax.Array,
    dtype: jnp.dtype,
    axes: int = 1,
    out_dtype: jnp.dtype | None = None,
) -> jax.Array:
    """Contract the last `axes` axes of `x` and `weight` (PyTorch's `[out, in]` order).

    Args:
      x: `[..., *inputs]`, any float dtype; rounded to `dtype`.
      weight: `[*outputs, *inputs]` fp32 master weight; rounded to `dtype` here, on every use.
      dtype: bfloat16, or float32 for full fp32 products (TF32 is not used).
      axes: the number of input axes.
      out_dtype: what the fp32 sums are rounded to at the end; None for `accumulation_dtype(dtype)`,
        float32. Half the bytes where a GPU waits for its memory.

    Returns:
      `[..., *outputs]`.
    """
    return _linear(x.astype(dtype), weight, axes, out_dtype or accumulation_dtype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _linear(x: jax.Array, weight: jax.Array, axes: int, out_dtype: jnp.dtype) -> jax.Array:
    weight = weight.astype(x.dtype)
    if on_cpu():
        # Plain matrices are up to twice as fast there as several axes, which XLA copies transposed;
        # elsewhere the axes let `tensor` sharding split heads.
        out = dot(_matrix(x, axes), _matrix(weight, axes), (1,), (1,), out_dtype=out_dtype)
        return out.reshape(x.shape[:-axes] + weight.shape[:-axes])
    return dot(x, weight, _last(x, axes), _last(weight, axes), out_dtype=out_dtype)


def _linear_fwd(x: jax.Array, weight: jax.Array, *rest) -> tuple[jax.Array, tuple]:
    return _linear(x, weight, *rest), (x, weight)


def _linear_bwd(axes: int, _, residuals: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = residuals
    g, w = g.astype(x.dtype), weight.astype(x.dtype)
    outputs = weight.ndim - axes
    if on_cpu():
        dx = dot(_matrix(g, outputs), _matrix(w, axes), (1,), (0,), out_dtype=x.dtype)
        dx = dx.reshape(x.shape)
    else:
        dx = dot(g, w, _last(g, outputs), tuple(range(outputs)), out_dtype=x.dtype)
    # Together: XLA's GPU scheduler would else put off weight gradients and keep the operands of
    # those of all layers, a third more memory.
    return lax.optimization_barrier((dx, weight_gradient(g, x, axes).astype(weight.dtype)))


_linear.defvjp(_linear_fwd, _linear_bwd)


def weight_gradient(g: jax.Array, x: jax.Array, axes: int) -> jax.Array:
    """`[*outputs, *inputs]` fp32: the product of `g` `[..., *outputs]` and `x` `[..., *inputs]`
    contracted over the leading axes."""
    leading = tuple(range(x.ndim - axes))
    if not on_cpu():
        return dot(g, x, leading, leading)
    outputs = g.shape[len(leading) :]
    g2, x2 = _matrix(g, len(outputs)), _matrix(x, axes)
    if x.dtype == jnp.bfloat16 and cpu_multiplies_bf16() and len(x2) % 2 == 0:
        dw = dot(row_major_transpose(g2), x2, (1,), (0,))
    else:
        dw = dot(g2, x2, (0,), (0,))
    return dw.reshape(outputs + x.shape[len(leading) :])


def _matrix(x: jax.Array, axes: int) -> jax.Array:
    """`x` with its last `axes` axes joined, and the ones before them joined."""
    return x.reshape(-1, math.prod(x.shape[x.ndim - axes :]))


def dot(
    a: jax.Array,
    b: jax.Array,
    contract_a: tuple,
    contract_b: tuple,
    batch: tuple = (),
    out_dtype: jnp.dtype | None = None,
) -> jax.Array:
    """Return `lax.dot_general` with the same `batch` axes of both, accumulated in fp32.

    The result has `out_dtype`, by default fp32; over an axis that the mesh splits, the sums of each
    device are rounded before they are added up.
    """
    summed = accumulation_dtype(a.dtype)
    out_dtype = out_dtype or summed
    if a.dtype == jnp.bfloat16 and on_cpu() and not cpu_multiplies_bf16():
        # The same numbers, since products of two bf16 are exact in fp32, in two thirds of the time.
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    out = lax.dot_general(
        a,
        b,
        ((contract_a, contract_b), (batch, batch)),
        precision=None if a.dtype == jnp.bfloat16 else lax.Precision.HIGHEST,
        # A GPU's libraries round their fp32 sums as they write; XLA for CPUs would sum in bf16.
        preferred_element_type=summed if on_cpu() else out_dtype,
    )
    return out.astype(out_dtype)


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """What sums over products of `dtype` are kept in: fp32, or float64 for float64, in which only
    `conversion.verify` computes."""
    return jnp.promote_types(dtype, jnp.float32)


def column_sums(x: jax.Array) -> jax.Array:
    """`[..., n]` fp32 summed over all but the last axis: on a CPU as a product, since a column
    reduction of XLA's is a hundred times slower there."""
    leading = tuple(range(x.ndim - 1))
    if not on_cpu():
        return x.sum(leading)
    return dot(jnp.ones(x.shape[:-1], x.dtype), x, leading, leading)


def row_sums(x: jax.Array) -> jax.Array:
    """`[..., n]` summed over its last axis: on a CPU as a product, since XLA's sum of products of
    two fp32 arrays is thirty times slower there in a batch of one row."""
    if not on_cpu():
        return x.sum(-1)
    return dot(x, jnp.ones(x.shape[-1:], x.dtype), (x.ndim - 1,), (0,))


@jax.custom_vjp
def scaled(x: jax.Array, weight: jax.Array) -> jax.Array:
    """`x` `[..., n]` times `weight` `[n]`, whose gradient is a reduction over columns: by
    `column_sums` on a CPU, where the whole gradient of a norm then takes a third of the time."""
    return x * weight.reshape((1,) * (x.ndim - 1) + (-1,))


def _scaled_bwd(residuals: tuple, g: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, weight = residuals
    return scaled(g, weight), column_sums(g * x).astype(weight.dtype)


scaled.defvjp(lambda x, weight: (scaled(x, weight), (x, weight)), _scaled_bwd)


def _last(x: jax.Array, axes: int) -> tuple[int, ...]:
    return tuple(range(x.ndim - axes, x.ndim))
