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
from bcmb_jax.errors import InputError
from bcmb_jax.metrics import mean_keys
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.precision import DTYPES

TOKENS = {"cpu": 8192, "gpu": 131_072, "tpu": 131_072}
SHORT = 256  # tokens of a document in rows of many
DIRECTIONS = {"forward": 1.0, "with gradient": 3.5}
"""FLOPs over the forward's: where scores are not kept, the backward computes them again."""
PEER = "torch sdpa"


def cases(
    config: ModelConfig,
    *,
    size: str,
    precision: str,
    lengths: list[int],
    compare: bool,
    rounds: int,
    burst: int,
    implementation: str,
) -> Iterator[dict[str, Any]]:
    """A result for each layer kind, direction, row length (multiples of 256) and kind of row."""
    if uneven := [n for n in lengths if n % SHORT]:
        raise InputError(f"attention: a length of {uneven[0]} is not a multiple of {SHORT}")
    dtype = DTYPES[precision]
    ceiling = matmul_ceiling(dtype)
    total = TOKENS[target().platform]
    for documents in ("whole rows", f"documents of {SHORT}"):
        whole = documents == "whole rows"
        each_of = {n: n if whole else SHORT for n in lengths if whole or n > SHORT}
        for kind, window in (("local", config.window), ("global", None)):
            sides: dict[str, dict[str, Callable[[], None]]] = {name: {} for name in DIRECTIONS}
            for length, each in each_of.items():
                shape = (
                    max(1, total // length),
                    length,
                    config.num_attention_heads,
                    config.head_size,
                )
                row = np.arange(length) // each + 1
                segment_ids = np.broadcast_to(row, shape[:2]).astype(np.int32)
                rng = np.random.default_rng(0)
                operands = [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(4)]
                ours = _ours(operands, segment_ids, window, implementation)
                theirs = _torch(operands, each, window, precision) if compare else {}
                for direction in DIRECTIONS:
                    sides[direction][f"{OURS} {length}"] = ours[direction]
                    if compare:
                        sides[direction][f"{PEER} {length}"] = theirs[direction]
            for direction, of_direction in sides.items():
                # All lengths take turns, so that how the cost grows is seen through the noise.
                times = race(of_direction, rounds, burst)
                ceiling = matmul_ceiling(dtype, before=ceiling)
                for length, each in each_of.items():
                    rows = max(1, total // length)
                    tokens = rows * length
                    keys = mean_keys(np.full(length // each, each), window)
                    flops = 4 * config.hidden_size * keys * tokens
                    named = {x: times.get(f"{x} {length}") for x in (OURS, PEER)}
                    yield result(
                        f"attention {size} {precision} {kind} {direction}, {rows}x{length}, "
                        f"{documents}",
                        tokens,
                        {name: x for name, x in named.items() if x},
                        flops=flops * DIRECTIONS[direction],
                        ceiling=ceiling,
                        size=size,
                        precision=precision,
                        attention=implementation,
                        layer=kind,
                        direction=direction,
                        length=length,
                        documents=documents,
                    )


def _ours(
    operands: list[jax.Array], segment_ids: np.ndarray, window: int | None, implementation
) -> dict[str, Callable[[], None]]:
    segments = jnp.asarray(segment_ids)  # an input, not a constant that the compiler may work out
    run = functools.partial(attention, window=window, implementation=implementation)

    def forward(q, k, v, g, segments):
        return run(q, k, v, segment_ids=segments)

    def with_gradient(q, k, v, g, segments):
        out, pull = jax.vjp(lambda *qkv: run(*qkv, segment_ids=segments), q, k, v)
        return out, pull(g)

    def compiled(function: Callable) -> Callable[[], None]:
        program = jax.jit(function).lower(*operands, segments).compile()
        return lambda: jax.block_until_ready(program(*operands, segments))

    return {"forward": compiled(forward), "with gradient": compiled(with_gradient)}


def _torch(
    operands: list[jax.Array], each: int, window: int | None, precision: str
) -> dict[str, Callable[[], None]]:
    """What transformers does without FlashAttention: `scaled_dot_product_attention`, each document
    a row, with a dense mask in local layers."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def theirs(x: jax.Array) -> Any:
        rows = np.asarray(x, np.float32).reshape(-1, each, *x.shape[2:]).swapaxes(1, 2)
        return torch.from_numpy(np.ascontiguousarray(rows)).to(device, dtype).requires_grad_()

    *tensors, cotangent = map(theirs, operands)
    cotangent = cotangent.detach()
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

    return {"forward": forward, "with gradient": with_gradient}
