# SPDX-License-Identifier: Apache-2.0
"""Every decision that depends on XLA's CPU backend.

On other devices each function is the plain operation. Measurements are in docs/performance/cpu.md.
"""

import contextlib
import itertools
import re
import string

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jaxtyping import Array, Float, Num, Shaped

from bcmb_jax.device import cpu_multiplies_bf16, on_cpu, operand_precision

LOGITS_AT_ONCE = 2**26
"""fp32 logits that exist at a time: 268 MB. With half of it the gradient of base at 4x512 took 6 %
longer (Xeon with AMX, bf16, median of 5 turns)."""


def logits_at_once(on_accelerators: int) -> int:
    """Return how many logits the decoder computes at a time, `on_accelerators` elsewhere."""
    return LOGITS_AT_ONCE if on_cpu() else on_accelerators


def runs_heads_in_turn() -> bool:
    """Return whether attention computes one row and head after the other.

    On a CPU that needs no transposed copies; other devices compute all heads in one batch.
    """
    return on_cpu()


def recomputes_elementwise() -> bool:
    """Return whether the backward pass recomputes norms and GELU rather than save their results."""
    return on_cpu()


def calls(*, inlined: bool) -> contextlib.AbstractContextManager[object]:
    """Return a context in which XLA's CPU backend inlines calls of jitted functions, or does not.

    With its calls inlined, a layer's recomputation in the backward pass would be found to equal its
    forward pass and be replaced by it, which keeps all that recomputation was to save, and the
    residual stream would be summed anew from the outputs of all layers wherever it is read. Where a
    function is mapped over some axes of the mesh and split over others (`tensor`), XLA decides:
    jaxlib 0.10 ends the process if it is to split a call there.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if not on_cpu() or (mesh.manual_axes and mesh.auto_axes):
        return contextlib.nullcontext()
    context: contextlib.AbstractContextManager[object] = set_xla_metadata(
        inlineable="true" if inlined else "false"
    )
    return context


def einsum(
    equation: str,
    a: Float[Array, "..."],
    b: Float[Array, "..."],
    sum_dtype: jnp.dtype,
    out_dtype: jnp.dtype,
) -> Float[Array, "..."]:
    """Return `jnp.einsum(equation, a, b)` in `out_dtype`, its sums kept in `sum_dtype`.

    On a CPU:
      - Axes that stand side by side wherever they stand are joined: plain matrices are up to twice
        as fast as several axes, which XLA copies transposed. Elsewhere the axes let `tensor`
        sharding split heads.
      - bf16 on a machine without instructions for it is multiplied in fp32: the same numbers, since
        products of two bf16 are exact in fp32, in two thirds of the time.
      - A bf16 product over the first axis of two matrices gets a transposed copy of the first one.
      - Sums are rounded after the product; XLA would sum in bf16. GPU libraries round their fp32
        sums as they write.

    Elsewhere axes are summed over in the order of their first use: `jnp.einsum` takes them in the
    alphabet's, for which XLA copied the gradient of queries, keys and values transposed.
    """
    if not on_cpu():
        return _einsum(in_alphabetical_order(equation), a, b, out_dtype)
    if a.dtype == jnp.bfloat16 and not cpu_multiplies_bf16():
        a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    a_axes, b_axes, out_axes = re.split(",|->", equation)
    sizes = dict(zip(a_axes + b_axes, a.shape + b.shape, strict=True))
    shape = [sizes[axis] for axis in out_axes]
    for first, second in reversed([*itertools.pairwise(equation)]):
        pair, terms = first + second, re.split(",|->", equation)
        everywhere = all((pair in t) == (first in t) == (second in t) for t in terms)
        if pair.isalpha() and pair in equation and everywhere:
            equation, sizes[first] = equation.replace(pair, first), sizes[first] * sizes[second]
    a_axes, b_axes, out_axes = re.split(",|->", equation)
    a, b = (x.reshape([sizes[i] for i in axes]) for x, axes in ((a, a_axes), (b, b_axes)))
    over_first_axes = a.ndim == b.ndim == 2 and a_axes[0] == b_axes[0]
    if over_first_axes and a.dtype == jnp.bfloat16 and len(a) % 2 == 0:
        a, a_axes = row_major_transpose(a), a_axes[::-1]
    out = _einsum(f"{a_axes},{b_axes}->{out_axes}", a, b, sum_dtype)
    return out.astype(out_dtype).reshape(shape)


def in_alphabetical_order(equation: str) -> str:
    """Return `equation` with its axes renamed a, b, c, … in the order of their first use."""
    axes = "".join(dict.fromkeys(filter(str.isalpha, equation)))
    return equation.translate(str.maketrans(axes, string.ascii_letters[: len(axes)]))


def _einsum(equation: str, a: Array, b: Array, dtype: jnp.dtype) -> Array:
    precision = operand_precision(a.dtype)
    return jnp.einsum(equation, a, b, precision=precision, preferred_element_type=dtype)


def column_sums(x: Float[Array, "... N"]) -> Float[Array, " N"]:
    """Return the sums of `x` over all but the last axis, in its dtype.

    A product on a CPU, where XLA's column reduction takes a hundred times longer.
    """
    if not on_cpu():
        return x.sum(tuple(range(x.ndim - 1)))
    rows = x.reshape(-1, x.shape[-1])
    return _einsum("m,mn->n", jnp.ones(len(rows), x.dtype), rows, x.dtype)


def row_sums(x: Float[Array, "... N"]) -> Float[Array, "..."]:
    """Return the sums of `x` over its last axis, in its dtype.

    A product on a CPU, where XLA's sum of products of two fp32 arrays takes thirty times longer in
    a batch of one row.
    """
    if not on_cpu():
        return x.sum(-1)
    rows = x.reshape(-1, x.shape[-1])
    return _einsum("mn,n->m", rows, jnp.ones(x.shape[-1], x.dtype), x.dtype).reshape(x.shape[:-1])


def bf16_to_bits(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """Return bf16 as uint16 on a CPU, anything else as it is; derivatives end here.

    XLA for CPUs moves no bf16: around a slice, join, pad or update it converts the whole array to
    fp32 and back, in a loop at every turn.
    """
    return lax.bitcast_convert_type(x, jnp.uint16) if x.dtype == jnp.bfloat16 and on_cpu() else x


def bits_to_bf16(x: Num[Array, "..."]) -> Num[Array, "..."]:
    """Undo `bf16_to_bits`: return uint16 as bf16, anything else as it is."""
    return lax.bitcast_convert_type(x, jnp.bfloat16) if x.dtype == jnp.uint16 else x


def row_major_transpose(x: Shaped[Array, "*N A B"]) -> Shaped[Array, "*N B A"]:
    """Return `x` with its last two axes swapped and materialised row-major; `A` must be even.

    XLA's CPU backend gives a plain transpose a permuted layout, which its bf16 kernel does not
    take: the product is then upcast and runs at half the speed. A reshape resets the layout; the
    barrier keeps the compiler from folding it away.
    """
    *batch, m, n = x.shape
    pairs = jnp.swapaxes(x, -1, -2).reshape(*batch, n, m // 2, 2)
    transposed: Array = lax.optimization_barrier(pairs)
    return transposed.reshape(*batch, n, m)
