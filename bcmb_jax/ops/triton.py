# SPDX-License-Identifier: Apache-2.0
"""What our kernels for NVIDIA GPUs, written in Pallas for Triton, share."""

import re
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from bcmb_jax.device import Target, on_cpu, target

BEFORE_AMPERE = re.compile(
    r"[PV]100|P4\b|T\d+G?\b|K80|M40|M60|P40|MX(?!570)|TITAN|GTX|RTX 20[678]0|Quadro"
)
LEAST_PIECE = 64

# JAX 0.11 and later announce at each lowering that this backend will move to jax-triton.
warnings.filterwarnings("ignore", "The Pallas Triton backend is deprecated", DeprecationWarning)


def runs_triton(device: Target) -> bool:
    """Whether our kernels are made for it: NVIDIA's GPUs from Ampere on."""
    return (
        device.platform == "gpu"
        and "NVIDIA" in device.kind
        and not BEFORE_AMPERE.search(device.kind)
    )


def gradient_is_a_kernel(dtype: jnp.dtype, size: int) -> bool:
    """Whether kernels between products run here: in bfloat16, as fp32 gains less, over axes of a
    `size` that has a power of two for a factor, since blocks are such."""
    return runs_triton(target()) and dtype == jnp.bfloat16 and size & -size >= LEAST_PIECE


def pieces(size: int, widest: int) -> tuple[int, int]:
    """`(piece, count)`: `size` as equal parts, a power of two and at most `widest` each."""
    piece = min(size & -size, widest)
    return piece, size // piece


def fill_up(x: jax.Array, axis: int, block: int) -> jax.Array:
    """`x` with zeros appended along `axis`, up to a multiple of `block`; an interval of zeros is
    empty."""
    missing = -x.shape[axis] % block
    return jnp.pad(x, [(0, missing if a == axis else 0) for a in range(x.ndim)]) if missing else x


def triton_call(
    kernel: Callable, name: str, *, grid, in_specs, out_specs, out_shape: Any, num_stages: int = 1
) -> Callable:
    """`pallas_call` with four warps a program; interpreted on a CPU, for tests."""
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


def on_each_device(run: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`run`, which holds a kernel, on the part of its operands that lies on each device of the mesh
    in use; `run` itself outside one.

    The partitioner knows nothing of a kernel's inside, and would gather all rows on every device;
    nor do kernels say over which axes their outputs vary, so that JAX cannot check it.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return run
    return jax.shard_map(run, in_specs=in_specs, out_specs=out_specs, check_vma=False)
