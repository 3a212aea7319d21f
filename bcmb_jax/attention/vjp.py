# SPDX-License-Identifier: Apache-2.0
"""The gradient that all kernels share: outputs and log-sum-exps are kept, scores are not."""

import functools
from typing import Protocol

import jax
from jax.ad_checkpoint import checkpoint_name

from bcmb_jax.ops.linear import accumulation_dtype, row_sums

OUTPUT = "attention_output"
"""The name under which outputs and log-sum-exps may be saved by a `jax.checkpoint` policy."""

Arrays = tuple[jax.Array, ...]


class Kernel(Protocol):
    """One way to compute attention, forward and backward; hashable."""

    def forward(self, q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array, end: jax.Array):
        """`(out, lse)`, `[B, L, H, D]` and `[B, H, L]`, from queries (already scaled), keys and
        values `[B, L, H, D]` and key intervals `[B, L]`; an empty interval gives zeros."""

    def backward(self, q, k, v, start, end, dout, lse, delta) -> Arrays:
        """`(dq, dk, dv)`; `delta` `[B, H, L]` is the sum of `out · dout` over `D`."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(
    kernel: Kernel, q: jax.Array, k: jax.Array, v: jax.Array, start: jax.Array, end: jax.Array
) -> jax.Array:
    """`[B, L, H, D]` of `kernel`, with the gradient of `kernel`."""
    return kernel.forward(q, k, v, start, end)[0]


def _fwd(kernel, q, k, v, start, end):
    out, lse = (checkpoint_name(x, OUTPUT) for x in kernel.forward(q, k, v, start, end))
    return out, (q, k, v, start, end, out, lse)


def _bwd(kernel, residuals, dout):
    q, k, v, start, end, out, lse = residuals
    wide = accumulation_dtype(q.dtype)
    delta = row_sums(out.astype(wide) * dout.astype(wide)).swapaxes(1, 2)
    return *kernel.backward(q, k, v, start, end, dout.astype(q.dtype), lse, delta), None, None


attend.defvjp(_fwd, _bwd)
