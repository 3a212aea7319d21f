# SPDX-License-Identifier: Apache-2.0
"""Helpers of the kernels for NVIDIA GPUs, which are written in Pallas for Triton."""

import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Shaped

from bcmb_jax.device import Target, on_cpu, target

BEFORE_AMPERE = re.compile(
    r"[PV]100|P4\b|T\d+G?\b|K80|M40|M60|P40|MX(?!570)|TITAN|GTX|RTX 20[678]0|Quadro"
)
MIN_PIECE = 64

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")

# JAX 0.11 and later announce at each lowering that this backend will move to jax-triton.
warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)


def runs_triton(device: Target) -> bool:
    """Return whether the kernels run on `device`: an NVIDIA GPU from Ampere on."""
    return (
        device.platform == "gpu"
        and "NVIDIA" in device.kind
        and not BEFORE_AMPERE.search(device.kind)
    )


def is_a_kernel(dtype: jnp.dtype, size: int) -> bool:
    """Return whether an operation between products, or its gradient, is a kernel here.

    In bfloat16, since fp32 gains less, and over axes of a `size` that has a power of two from
    `MIN_PIECE` on as a factor, since blocks are powers of two.
    """
    return runs_triton(target()) and dtype == jnp.bfloat16 and size & -size >= MIN_PIECE


def pieces(size: int, widest: int) -> tuple[int, int]:
    """Return `(piece, count)`: `size` in equal parts, a power of two and at most `widest` each."""
    piece = min(size & -size, widest)
    return piece, size // piece


def pad_to_multiple(x: Shaped[Array, "..."], axis: int, block: int) -> Shaped[Array, "..."]:
    """Return `x` with zeros appended along `axis`, up to a multiple of `block`."""
    missing = -x.shape[axis] % block
    return jnp.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)]) if missing else x


def call(
    kernel: Callable[..., None],
    name: str,
    grid: tuple[int, ...],
    inputs: Sequence[Any],
    outputs: Sequence[pl.BlockSpec],
    shapes: Sequence[jax.ShapeDtypeStruct],
    *,
    stages: int = 1,
    aliases: Mapping[int, int] | None = None,
) -> Callable[..., tuple[Array, ...]]:
    """Return the call of a kernel: the only place that knows for which compiler it is written.

    Args:
      inputs: a spec of each input, or a tree of specs like that of the inputs.
      stages: of a loop's loads that are under way at a time.
      aliases: inputs by number, in whose memory outputs are written.
    """
    run: Callable[..., tuple[Array, ...]] = pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=inputs,
        out_specs=outputs,
        out_shape=shapes,
        input_output_aliases=aliases or {},
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=stages),
        interpret=on_cpu(),  # for tests
        name=name,
    )
    return run


def map_tokens(
    kernel: Callable[..., None],
    name: str,
    block: int,
    inputs: Sequence[Array],
    outputs: Sequence[Array | jax.ShapeDtypeStruct],
    *,
    weights: Sequence[Array] = (),
    rows: Sequence[Array] = (),
    gradients: Sequence[Array] = (),
    parts: int = 1,
) -> tuple[Array, ...]:
    """Run `kernel` on every `block` of tokens of arrays `[B, L, …]`.

    Args:
      kernel: takes references to all `weights`, a row of each of `rows`, a block of each of
        `inputs`, a block of each of `outputs`, and what the block adds to each of `gradients`; its
        programs are numbered by block and row.
      outputs: arrays or their shapes, `[B, L, …]`.
      weights: vectors that every program reads whole.
      rows: of a few numbers each, `[B, n]`.
      gradients: weights whose gradients are sums over tokens.
      parts: of the last axis, one to a program.

    Returns:
      The outputs, and for each of `gradients` what each program adds to it, `[B, blocks, size]`,
      fp32.
    """
    length = inputs[0].shape[1]
    inputs = [pad_to_multiple(x, 1, block) for x in inputs]
    batch, padded = inputs[0].shape[:2]

    def spec(x: Array | jax.ShapeDtypeStruct) -> pl.BlockSpec:
        between = x.shape[2:-1]
        shape = (None, block, *between, x.shape[-1] // parts)
        return pl.BlockSpec(shape, lambda i, b, j: (b, i, *(0,) * len(between), j))

    results = call(
        kernel,
        name,
        (padded // block, batch, parts),
        [
            *(pl.BlockSpec(w.shape, lambda i, b, j: (0,)) for w in weights),
            *(pl.BlockSpec((None, *x.shape[1:]), lambda i, b, j: (b, 0)) for x in rows),
            *map(spec, inputs),
        ],
        [
            *map(spec, outputs),
            *(pl.BlockSpec((None, None, *w.shape), lambda i, b, j: (b, i, 0)) for w in gradients),
        ],
        [
            *(jax.ShapeDtypeStruct((batch, padded, *x.shape[2:]), x.dtype) for x in outputs),
            *(
                jax.ShapeDtypeStruct((batch, padded // block, *w.shape), jnp.float32)
                for w in gradients
            ),
        ],
    )(*weights, *rows, *inputs)
    count = len(outputs)
    return *(x[:, :length] for x in results[:count]), *results[count:]


def on_each_device(
    run: Callable[Arguments, Result], in_specs: tuple[P, ...], out_specs: P | tuple[P, ...]
) -> Callable[Arguments, Result]:
    """Return `run`, which holds a kernel, applied to each device's part of its operands.

    Outside a mesh, and inside a map over all its axes, `run` itself. The partitioner knows nothing
    of a kernel's inside, and would gather all rows on every device; nor do kernels say over which
    axes their outputs vary, so that JAX cannot check it.
    """
    axes = set(jax.sharding.get_abstract_mesh().auto_axes)
    if not axes:
        return run

    def over_axes(spec: P) -> P:
        """Leave out the axes that the function being traced is already mapped over."""
        parts = (part if isinstance(part, tuple) else (part,) for part in spec)
        return P(*(tuple(axis for axis in part if axis in axes) or None for part in parts))

    specs = jax.tree.map(over_axes, (in_specs, out_specs), is_leaf=lambda x: isinstance(x, P))
    return jax.shard_map(
        run, in_specs=specs[0], out_specs=specs[1], axis_names=axes, check_vma=False
    )
