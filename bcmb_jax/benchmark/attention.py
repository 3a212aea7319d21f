# SPDX-License-Identifier: Apache-2.0
"""Time one layer's attention alone: local and global, forward and with its gradient.

The number of tokens is fixed; the length of rows and of the documents in a row varies.
"""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bcmb_jax.attention import attention
from bcmb_jax.benchmark.report import OURS, Setting, result
from bcmb_jax.benchmark.timing import matmul_ceiling, time_interleaved
from bcmb_jax.device import target
from bcmb_jax.errors import InputError
from bcmb_jax.model.cost import mean_keys

TOKENS = {"cpu": 8192, "gpu": 131_072, "tpu": 131_072}
SHORT = 256  # tokens of a document in rows of many
DIRECTIONS = {"forward": 1.0, "with gradient": 3.5}
"""FLOPs over the forward's: where scores are not kept, the backward computes them again."""


def cases(setting: Setting, *, lengths: list[int], documents: int) -> Iterator[dict[str, Any]]:
    """Yield a result for each layer kind, direction, row length (multiples of 256) and kind of row.

    Args:
      setting: its candidates are keys of `CANDIDATES`.
      documents: rows of a case; 0: as many as make `TOKENS`.
    """
    if uneven := [n for n in lengths if n % SHORT]:
        raise InputError(f"attention: a length of {uneven[0]} is not a multiple of {SHORT}")
    config = setting.config
    ceiling = matmul_ceiling(setting.dtype)
    total = TOKENS[target().platform]
    rows_of = {length: documents or max(1, total // length) for length in lengths}
    for row in ("whole rows", f"documents of {SHORT}"):
        whole = row == "whole rows"
        each_of = {n: n if whole else SHORT for n in lengths if whole or n > SHORT}
        for kind, window in (("local", config.window), ("global", None)):
            candidates: dict[str, dict[str, Callable[[], None]]] = {name: {} for name in DIRECTIONS}
            for length, each in each_of.items():
                heads = config.num_attention_heads
                shape = (rows_of[length], length, heads, config.head_size)
                segments = np.arange(length) // each + 1
                segment_ids = np.broadcast_to(segments, shape[:2]).astype(np.int32)
                operands = [
                    jax.random.normal(key, shape, setting.dtype)
                    for key in jax.random.split(jax.random.key(0), 4)
                ]
                runs = {OURS: _ours(operands, segment_ids, window, setting.implementation)}
                for candidate in setting.candidates:
                    runs[f"torch {candidate}"] = CANDIDATES[candidate](
                        operands, each, window, setting.precision
                    )
                for name, run in runs.items():
                    for direction in DIRECTIONS:
                        candidates[direction][f"{name} {length}"] = run[direction]
            for direction, functions in candidates.items():
                # All lengths take turns, so that the growth of the cost shows through the noise.
                times = time_interleaved(functions, setting.rounds, setting.repeats)
                ceiling = matmul_ceiling(setting.dtype, before=ceiling)
                for length, each in each_of.items():
                    tokens = rows_of[length] * length
                    keys = mean_keys(np.full(length // each, each), window)
                    flops = 4 * config.hidden_size * keys * tokens
                    names = (OURS, *(f"torch {candidate}" for candidate in setting.candidates))
                    yield result(
                        f"attention {setting.size} {setting.precision} {kind} {direction}, "
                        f"{rows_of[length]}x{length}, {row}",
                        tokens,
                        {name: times[f"{name} {length}"] for name in names},
                        flops=flops * DIRECTIONS[direction],
                        ceiling=ceiling,
                        peers=list(setting.candidates),
                        layer=kind,
                        direction=direction,
                        length=length,
                        documents=row,
                        **setting.metadata(),
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


def _torch_sdpa(
    operands: list[jax.Array], each: int, window: int | None, precision: str
) -> dict[str, Callable[[], None]]:
    """Run what transformers does without FlashAttention: `scaled_dot_product_attention`.

    Each document is a row, and local layers have a dense mask.
    """
    import torch

    def theirs(x: jax.Array) -> Any:
        rows = np.asarray(x, np.float32).reshape(-1, each, *x.shape[2:]).swapaxes(1, 2)
        return _tensor(rows, precision)

    *tensors, cotangent = map(theirs, operands)
    position = torch.arange(each, device=cotangent.device)
    near = (position[:, None] - position[None]).abs() <= window if window is not None else None
    attend = functools.partial(
        torch.nn.functional.scaled_dot_product_attention, *tensors, attn_mask=near
    )
    return _both_directions(attend, tensors, cotangent)


def _torch_flash(
    operands: list[jax.Array], each: int, window: int | None, precision: str
) -> dict[str, Callable[[], None]]:
    """FlashAttention-2 over all documents as one row, without padding."""
    import torch
    from flash_attn import flash_attn_varlen_func

    *tensors, cotangent = (
        _tensor(np.asarray(x, np.float32).reshape(-1, *x.shape[2:]), precision) for x in operands
    )
    starts = torch.arange(0, len(cotangent) + 1, each, dtype=torch.int32, device=cotangent.device)
    sides = (-1, -1) if window is None else (window, window)
    attend = functools.partial(
        flash_attn_varlen_func, *tensors, starts, starts, each, each, window_size=sides
    )
    return _both_directions(attend, tensors, cotangent)


def _tensor(x: np.ndarray, precision: str) -> Any:
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    return torch.from_numpy(np.ascontiguousarray(x)).to(device, dtype).requires_grad_()


def _both_directions(
    attend: Callable[[], Any], tensors: list[Any], cotangent: Any
) -> dict[str, Callable[[], None]]:
    import torch

    def wait() -> None:
        if cotangent.is_cuda:
            torch.cuda.synchronize()

    def forward() -> None:
        with torch.no_grad():
            attend()
        wait()

    def with_gradient() -> None:
        torch.autograd.grad(attend(), tensors, cotangent.detach())
        wait()

    return {"forward": forward, "with gradient": with_gradient}


CANDIDATES = {"sdpa": _torch_sdpa, "flash_attention_2": _torch_flash}
