# SPDX-License-Identifier: Apache-2.0
"""Time one layer's attention alone: local and global, forward and with its gradient.

The number of tokens is fixed; the length of rows and of the documents in a row varies.
"""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np

from bcmb_jax.attention import attention
from bcmb_jax.benchmark.report import Result, result
from bcmb_jax.benchmark.timing import OURS, Setting
from bcmb_jax.benchmark.torch_baselines import wait
from bcmb_jax.device import target
from bcmb_jax.errors import InputError
from bcmb_jax.model.cost import mean_keys
from conversion import torch_models

TOKENS = {"cpu": 8192, "gpu": 131_072, "tpu": 131_072}
SHORT = 256  # tokens of a document in rows of many
DIRECTIONS = {"forward": 1.0, "with gradient": 3.5}
"""FLOPs over the forward's: where scores are not kept, the backward computes them again."""
Runs = dict[str, Callable[[], None]]  # by direction


def cases(setting: Setting, *, lengths: list[int], documents: int) -> Iterator[Result]:
    """Yield a result for each layer kind, direction, row length (multiples of 256) and kind of row.

    Args:
      documents: rows of a case; 0: as many as make `TOKENS`.
    """
    if uneven := [n for n in lengths if n % SHORT]:
        raise InputError(f"attention: a length of {uneven[0]} is not a multiple of {SHORT}")
    config = setting.config
    rows_of = {n: documents or max(1, TOKENS[target().platform] // n) for n in lengths}
    peers = [f"torch {candidate}" for candidate in setting.candidates]
    for row, each_of in (
        ("whole rows", {n: n for n in lengths}),
        (f"documents of {SHORT}", {n: SHORT for n in lengths if n > SHORT}),
    ):
        for kind, window in (("local", config.window), ("global", None)):
            # All lengths take turns, so that the growth of the cost shows through the noise.
            candidates: Runs = {}
            for length, each in each_of.items():
                shape = (rows_of[length], length, config.num_attention_heads, config.head_size)
                operands = [
                    jax.random.normal(key, shape, setting.dtype)
                    for key in jax.random.split(jax.random.key(0), 4)
                ]
                runs = {OURS: _ours(setting, operands, each, window)}
                for candidate, name in zip(setting.candidates, peers, strict=True):
                    runs[name] = _torch(candidate, operands, each, window)
                for name, by_direction in runs.items():
                    for direction, run in by_direction.items():
                        candidates[f"{name} {direction} {length}"] = run
            times, ceiling = setting.time(candidates)
            for direction, factor in DIRECTIONS.items():
                for length, each in each_of.items():
                    tokens = rows_of[length] * length
                    keys = mean_keys(np.full(length // each, each), window)
                    yield result(
                        f"attention {setting.size} {setting.precision} {kind} {direction}, "
                        f"{rows_of[length]}x{length}, {row}",
                        tokens,
                        {name: times[f"{name} {direction} {length}"] for name in (OURS, *peers)},
                        ceiling,
                        devices=1,
                        flops=4 * config.hidden_size * keys * tokens * factor,
                        peers=list(setting.candidates),
                        layer=kind,
                        direction=direction,
                        length=length,
                        documents=row,
                        **setting.metadata(),
                    )


def _ours(setting: Setting, operands: list[jax.Array], each: int, window: int | None) -> Runs:
    rows, length = operands[0].shape[:2]
    # An input, not a constant that the compiler may work out.
    segments = jnp.tile(jnp.arange(length, dtype=jnp.int32) // each + 1, (rows, 1))

    def forward(q, k, v, segments):
        return attention(
            q, k, v, segment_ids=segments, window=window, implementation=setting.implementation
        )

    def with_gradient(q, k, v, g, segments):
        out, pull = jax.vjp(functools.partial(forward, segments=segments), q, k, v)
        return out, pull(g)

    def compiled(function: Callable, *inputs: jax.Array) -> Callable[[], None]:
        program = jax.jit(function).lower(*inputs).compile()
        return lambda: jax.block_until_ready(program(*inputs))

    return {
        "forward": compiled(forward, *operands[:3], segments),
        "with gradient": compiled(with_gradient, *operands, segments),
    }


def _torch(candidate: str, operands: list[jax.Array], each: int, window: int | None) -> Runs:
    """Run PyTorch's attention on documents of `each` tokens.

    `sdpa` is what transformers does without FlashAttention: each document is a row, and local
    layers have a dense mask. `flash_attention_2` reads all documents as one row, without padding.
    """
    import torch

    device = torch_models.device()
    dtype = torch.bfloat16 if operands[0].dtype == jnp.bfloat16 else torch.float32
    tensors = [torch.from_numpy(np.array(x, np.float32)).to(device, dtype) for x in operands]
    if candidate == "sdpa":
        rows = [x.reshape(-1, each, *x.shape[2:]).transpose(1, 2).contiguous() for x in tensors]
        position = torch.arange(each, device=device)
        near = (position[:, None] - position).abs() <= window if window is not None else None
        attend = functools.partial(torch.nn.functional.scaled_dot_product_attention, attn_mask=near)
    else:
        from flash_attn import flash_attn_varlen_func

        rows = [x.flatten(0, 1) for x in tensors]
        starts = torch.arange(0, len(rows[0]) + 1, each, dtype=torch.int32, device=device)
        attend = functools.partial(
            flash_attn_varlen_func,
            cu_seqlens_q=starts,
            cu_seqlens_k=starts,
            max_seqlen_q=each,
            max_seqlen_k=each,
            window_size=(-1, -1) if window is None else (window, window),
        )
    *inputs, cotangent = rows
    for x in inputs:
        x.requires_grad_()

    def forward() -> None:
        with torch.no_grad():
            attend(*inputs)
        wait()

    def with_gradient() -> None:
        torch.autograd.grad(attend(*inputs), inputs, cotangent)
        wait()

    return {"forward": forward, "with gradient": with_gradient}
