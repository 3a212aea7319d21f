# SPDX-License-Identifier: Apache-2.0
"""The one matrix product of the model: compute-dtype operands, fp32 accumulation, in both passes.

Plain autodiff of a bf16 × bf16 → fp32 product makes its backward products fp32 × bf16, which leave
the fast kernels of every backend. So the product has its own VJP: the incoming cotangent is rounded
to the compute dtype first, as upstream's autocast does, and the weight's cotangent stays fp32.
"""

import functools
import re

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from bcmb_jax.ops import cpu


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """Return the dtype in which products of `dtype` are summed.

    float32, or float64 for float64, in which only `conversion.verify` computes.
    """
    sums: jnp.dtype = jnp.dtype(jnp.float64 if dtype == jnp.float64 else jnp.float32)
    return sums


def dot(
    equation: str,
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    out_dtype: jnp.dtype | None = None,
) -> Float[Array, "..."]:
    """Return the einsum of two operands of one dtype, accumulated in `accumulation_dtype`.

    Args:
      equation: explicit and without an ellipsis, such as `"qk,dk->qd"`.
      out_dtype: of the result; None for `accumulation_dtype(a.dtype)`. Over an axis that the mesh
        splits, the sums of each device are rounded to it before they are added up.
    """
    sum_dtype = accumulation_dtype(a.dtype)
    return cpu.einsum(equation, a, b, sum_dtype, out_dtype or sum_dtype)


def linear(
    equation: str,
    x: Float[Array, "..."],
    weight: Float[Array, "..."],
    dtype: jnp.dtype,
    out_dtype: jnp.dtype | None = None,
) -> Float[Array, "..."]:
    """Return the product of activations and a weight in PyTorch's order, `[*outputs, *inputs]`.

    Args:
      equation: an einsum such as `"bld,fd->blf"`.
      x: any float dtype; rounded to `dtype`.
      weight: fp32 master weight; rounded to `dtype` here, on every use.
      dtype: bfloat16, or float32 (full fp32 products, unless `device.products_in("tf32")`).
      out_dtype: of the result; None for `accumulation_dtype(dtype)`, float32. bfloat16 halves the
        bytes where a GPU waits for its memory.
    """
    return _linear(equation, x.astype(dtype), weight, out_dtype or accumulation_dtype(dtype))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 3))
def _linear(equation: str, x: Array, weight: Array, out_dtype: jnp.dtype) -> Array:
    return dot(equation, x, weight.astype(x.dtype), out_dtype)


def _backward(
    equation: str, _: jnp.dtype, residuals: tuple[Array, Array], dout: Array
) -> tuple[Array, Array]:
    x, weight = residuals
    x_axes, weight_axes, out_axes = re.split(",|->", equation)
    dout = dout.astype(x.dtype)
    dx = dot(f"{out_axes},{weight_axes}->{x_axes}", dout, weight.astype(x.dtype), x.dtype)
    dweight = dot(f"{out_axes},{x_axes}->{weight_axes}", dout, x)
    # Together: XLA's GPU scheduler would else put off weight gradients and keep the operands of
    # those of all layers, a third more memory.
    gradients: tuple[Array, Array] = lax.optimization_barrier((dx, dweight.astype(weight.dtype)))
    return gradients


_linear.defvjp(lambda *args: (_linear(*args), args[1:3]), _backward)
