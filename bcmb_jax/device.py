# SPDX-License-Identifier: Apache-2.0
"""The device: its kind, the precision of products, its description for reports, freed memory."""

import contextlib
import ctypes
import functools
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from bcmb_jax.errors import InputError

PRECISIONS = {"bf16": "bfloat16", "tf32": "tensorfloat32", "fp32": "float32"}
"""JAX's names of matrix products by the values of `config.precision`. In "tf32" a GPU rounds the
fp32 operands to 10 bits of mantissa; "fp32" is full precision on every device."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's <malloc.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

BATCH_AXES = ("data", "fsdp")
"""The axes of the mesh that rows are split over."""

JOINED_COLLECTIVES = ("all_reduce", "all_gather", "reduce_scatter")
"""Collectives that become one, whatever their size: each stands where all devices wait for it."""


class Target(NamedTuple):
    """The kind of device that the program being traced will run on."""

    platform: str
    """"cpu", "gpu" or "tpu"."""
    kind: str
    """The name that the devices give themselves: "NVIDIA H100 80GB HBM3", "cpu"."""


def target() -> Target:
    """Return the kind of the devices of the mesh in use (`jax.set_mesh`), else of the default ones.

    A mesh may be of devices that this machine does not have, to compile for them.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    platform = "gpu" if device.platform in ("cuda", "rocm") else device.platform
    return Target(platform, device.device_kind)


def compiler_options(mesh: Mesh) -> dict[str, bool | int]:
    """Return XLA's options for a training step on `mesh`; none for a single device, or for CPUs.

    docs/gpu.md lists them, with what each changes.
    """
    if mesh.size == 1 or mesh.devices.flat[0].platform not in ("cuda", "rocm", "gpu"):
        return {}
    joined = (f"xla_gpu_{kind}_combine_threshold_bytes" for kind in JOINED_COLLECTIVES)
    return {"xla_gpu_enable_latency_hiding_scheduler": True} | dict.fromkeys(joined, 2**36)


def on_cpu() -> bool:
    """Tell whether `target()` is a CPU."""
    return target().platform == "cpu"


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Tell whether this machine's CPU has instructions for bf16 products (AVX-512 BF16)."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


def resolve_precision(precision: str = "") -> str:
    """Return the precision itself, or for an empty one the default for training on this device.

    That is "fp32" on every CPU, whatever instructions it has, so that a run does not depend on the
    machine that it was begun on; elsewhere "bf16".

    Raises:
      InputError: another name, or "tf32" where there is no GPU.
    """
    platform = target().platform
    if not precision:
        return "fp32" if platform == "cpu" else "bf16"
    if precision not in PRECISIONS:
        raise InputError(
            f"precision {precision!r} is not 'bf16', 'tf32' or 'fp32' (or empty to choose)"
        )
    if precision == "tf32" and platform != "gpu":
        raise InputError(f"precision 'tf32' is for GPUs; on a {platform} give 'fp32' or 'bf16'")
    return precision


def compute_dtype(precision: str) -> jnp.dtype:
    """Return the dtype of the operands of matrix products in a precision.

    Parameters, moments, residual stream, norms, softmax and loss are fp32 in every precision.

    Raises:
      InputError: as `resolve_precision`.
    """
    dtype: jnp.dtype = jnp.dtype(
        jnp.bfloat16 if resolve_precision(precision) == "bf16" else jnp.float32
    )
    return dtype


def products_in(precision: str) -> contextlib.AbstractContextManager[object]:
    """Return the context in which functions are called that multiply in a resolved precision."""
    context: contextlib.AbstractContextManager[object] = jax.default_matmul_precision(
        PRECISIONS[precision]
    )
    return context


def operand_precision(dtype: jnp.dtype) -> jax.lax.Precision | None:
    """Return how exactly operands of a dtype are multiplied, for the function being traced.

    float32 in full, unless it is called in `products_in("tf32")`: without a word from us a GPU
    would round to TF32. bfloat16 needs none.
    """
    full = jax.default_matmul_precision.value != PRECISIONS["tf32"]
    return jax.lax.Precision.HIGHEST if full and dtype != jnp.bfloat16 else None


def describe_device() -> dict[str, Any]:
    """Return platform, kind and number of the devices, for reports; JSON."""
    devices = jax.devices()
    description: dict[str, Any] = {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
    if devices[0].platform == "cpu":
        description |= {
            "kind": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "multiplies_bf16": cpu_multiplies_bf16(),
        }
    return description


def commit(checkout: Path = Path(__file__).parents[1]) -> str | None:
    """Return the commit of `checkout`, with "+" behind it where its code has changed since.

    None without git, or where the package is installed elsewhere.
    """
    if not (checkout / ".git").exists():
        return None
    git = ["git", "-C", str(checkout)]
    with contextlib.suppress(OSError, subprocess.CalledProcessError):
        head = subprocess.check_output(
            [*git, "rev-parse", "--short=10", "HEAD"], text=True, stderr=subprocess.DEVNULL
        )
        code = [*git, "diff", "--quiet", "HEAD", "--", "*.py", "*.toml"]
        return head.strip() + "+" * bool(subprocess.run(code).returncode)
    return None


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def keep_freed_memory() -> None:
    """Let glibc reuse large blocks instead of unmapping them; elsewhere nothing happens.

    Every step allocates the same large temporaries. Mapped afresh each time, their page faults cost
    a small model a quarter of its speed on a CPU.
    """
    _mallopt(M_MMAP_MAX, 0)
    _mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def give_back_freed_memory() -> None:
    """Return what was freed so far, which after a pass over large tensors is a lot."""
    if _libc and hasattr(_libc, "malloc_trim"):
        _libc.malloc_trim(0)


def _mallopt(parameter: int, value: int) -> None:
    if _libc and hasattr(_libc, "mallopt"):
        _libc.mallopt(parameter, value)
