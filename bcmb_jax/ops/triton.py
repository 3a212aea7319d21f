# SPDX-License-Identifier: Apache-2.0
"""Helpers of the kernels for NVIDIA GPUs, which are written in Pallas for Triton."""

import re
import warnings
from collections.abc import Callable, Sequence
from typing import ParamSpec, TypeVar

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


def gradient_is_a_kernel(dtype: jnp.dtype, size: int) -> bool:
    """Return whether the gradient of an operation between products is a kernel here.

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


def triton_call(
    kernel: Callable[..., None],
    name: str,
    *,
    grid: tuple[int, ...],
    in_specs: Sequence[pl.BlockSpec],
    out_specs: pl.BlockSpec | Sequence[pl.BlockSpec],
    out_shape: jax.ShapeDtypeStruct | Sequence[jax.ShapeDtypeStruct],
    num_stages: int = 1,
) -> Callable[..., Result]:
    """Return `pallas_call` with four warps a program; on a CPU it is interpreted, for tests."""
    return pl.pallas_call(
        kernel,
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        out_shape=out_shape,
        compiler_params=plt.CompilerParams(num_warps=4, num_stages=num_stages),
        interpret=on_cpu(),
        name=name,
    )


def on_each_device(
    run: Callable[Arguments, Result], in_specs: tuple[P, ...], out_specs: P | tuple[P, ...]
) -> Callable[Arguments, Result]:
    """Return `run`, which holds a kernel, applied to each device's part of its operands.

    Outside a mesh `run` itself. The partitioner knows nothing of a kernel's inside, and would
    gather all rows on every device; nor do kernels say over which axes their outputs vary, so that
    JAX cannot check it.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return run
    return jax.shard_map(run, in_specs=in_specs, out_specs=out_specs, check_vma=False)
