# SPDX-License-Identifier: Apache-2.0
"""One layer's attention alone: local and global, forward and with its gradient, at a fixed number
of tokens, by row length and by how long the documents in a row are."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bcmb_jax.attention import attention
from bcmb_jax.benchmark.result import OURS, result
from bcmb_jax.benchmark.roofline import matmul_ceiling
from bcmb_jax.benchmark.timing import race
from bcmb_jax.device import target
from bcmb_jax.metrics import mean_keys
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.precision import DTYPES

TOKENS = {"cpu": 8192, "gpu": 131_072, "tpu": 131_072}
SHORT = 256  # tokens of a document in rows of many
RECOMPUTED = 3.5  # FLOPs of forward and backward over the forward's, where scores are not kept


def cases(
    config: ModelConfig,
    *,
    size: str,
    precision: str,
    lengths: list[int],
    compare: bool,
    rounds: int,
    burst: int,
    implementation: str | None,
) -> Iterator[dict[str, Any]]:
    """A result for each layer kind, direction, row length and kind of row."""
    dtype = DTYPES[precision]
    ceiling = matmul_ceiling(dtype)
    total = TOKENS[target().platform]
    for length in lengths:
        for documents in ("whole rows", f"documents of {SHORT}"):
            if documents != "whole rows" and length <= SHORT:
                continue
            each = length if documents == "whole rows" else SHORT
            shape = (max(1, total // length), length, config.num_attention_heads, config.head_size)
            row = np.arange(length) // each + 1
            segment_ids = np.broadcast_to(row, shape[:2]).astype(np.int32)
            rng = np.random.default_rng(0)
            q, k, v, g = (jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4))
            for kind, window in (("local", config.window), ("global", None)):
                run = functools.partial(
                    attention,
                    segment_ids=jnp.asarray(segment_ids),
                    window=window,
                    implementation=implementation,
                )
                peer = _torch(q, k, v, g, each, window, precision) if compare else {}
                for what, ours in _directions(run, q, k, v, g).items():
                    times = race({OURS: ours} | peer.get(what, {}), rounds, burst)
                    tokens = shape[0] * length
                    keys = mean_keys(np.full(length // each, each), window)
                    flops = 4 * config.hidden_size * keys * tokens
                    yield result(
                        f"attention {size} {precision} {kind} {what}, {shape[0]}x{length}, "
                        f"{documents}",
                        tokens,
                        times,
                        flops=flops * (RECOMPUTED if what == "with gradient" else 1),
                        ceiling=ceiling,
                        size=size,
                        precision=precision,
                        layer=kind,
                        direction=what,
                        length=length,
                        documents=documents,
                    )


def _directions(run: Callable, q, k, v, g) -> dict[str, Callable[[], None]]:
    @jax.jit
    def forward(q, k, v, g):
        return run(q, k, v)

    @jax.jit
    def with_gradient(q, k, v, g):
        out, pull = jax.vjp(run, q, k, v)
        return out, pull(g)

    def call(function: Callable) -> Callable[[], None]:
        return lambda: jax.block_until_ready(function(q, k, v, g))

    return {"forward": call(forward), "with gradient": call(with_gradient)}


def _torch(q, k, v, g, each: int, window: int | None, precision: str) -> dict[str, dict]:
    """What transformers does without FlashAttention: `scaled_dot_product_attention`, each document
    a row, with a dense mask in local layers."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def theirs(x: jax.Array) -> Any:
        rows = np.asarray(x, np.float32).reshape(-1, each, *x.shape[2:]).swapaxes(1, 2)
        return torch.from_numpy(np.ascontiguousarray(rows)).to(device, dtype).requires_grad_()

    tensors = [theirs(x) for x in (q, k, v)]
    cotangent = theirs(g).detach()
    position = torch.arange(each, device=device)
    near = (position[:, None] - position[None]).abs() <= window if window is not None else None
    attend = functools.partial(
        torch.nn.functional.scaled_dot_product_attention, *tensors, attn_mask=near
    )

    def wait() -> None:
        if device == "cuda":
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.no_grad():
            attend()
        wait()

    def with_gradient() -> None:
        torch.autograd.grad(attend(), tensors, cotangent)
        wait()

    return {"forward": {"torch sdpa": forward}, "with gradient": {"torch sdpa": with_gradient}}
