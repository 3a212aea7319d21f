# SPDX-License-Identifier: Apache-2.0
"""The gradient that all kernels share: outputs and log-sum-exps are saved, scores are not."""

import functools
from typing import Protocol, runtime_checkable

import jax
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from bcmb_jax.ops.cpu import row_sums
from bcmb_jax.ops.linear import accumulation_dtype
from bcmb_jax.ops.remat import ATTENTION_OUTPUT

Heads = Float[Array, "B L H K"]
Queries = Float[Array, "B H L"]
Bounds = Int[Array, "B L"]
Residuals = tuple[Array, Array, Array, Array, Array, Array, Array]


@runtime_checkable
class Kernel(Protocol):
    """One way to compute attention, forward and backward; hashable."""

    def forward(
        self, q: Heads, k: Heads, v: Heads, start: Bounds, end: Bounds
    ) -> tuple[Array, ...]:
        """Return the output `[B, L, H, K]` and the log-sum-exps `[B, H, L]` of the scores.

        Queries are scaled already; query `i` sees the keys `start[i] <= j < end[i]`, and an empty
        interval gives zeros.
        """

    def backward(
        self,
        q: Heads,
        k: Heads,
        v: Heads,
        start: Bounds,
        end: Bounds,
        dout: Heads,
        lse: Queries,
        delta: Queries,
    ) -> tuple[Array, ...]:
        """Return `(dq, dk, dv)`; `delta` is the sum of `out · dout` over the head."""


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def attend(kernel: Kernel, q: Heads, k: Heads, v: Heads, start: Bounds, end: Bounds) -> Heads:
    """Return the output of `kernel`, whose gradient is its backward pass."""
    return kernel.forward(q, k, v, start, end)[0]


def _forward(
    kernel: Kernel, q: Array, k: Array, v: Array, start: Array, end: Array
) -> tuple[Array, Residuals]:
    out, lse = (checkpoint_name(x, ATTENTION_OUTPUT) for x in kernel.forward(q, k, v, start, end))
    return out, (q, k, v, start, end, out, lse)


def _backward(kernel: Kernel, residuals: Residuals, dout: Array) -> tuple[Array | None, ...]:
    q, k, v, start, end, out, lse = residuals
    wide = accumulation_dtype(q.dtype)
    delta = row_sums(out.astype(wide) * dout.astype(wide)).swapaxes(1, 2)
    return *kernel.backward(q, k, v, start, end, dout.astype(q.dtype), lse, delta), None, None


attend.defvjp(_forward, _backward)
