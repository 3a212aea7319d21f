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

from bcmb_jax.errors import InputError

DTYPES: dict[str, jnp.dtype] = {"bf16": jnp.dtype(jnp.bfloat16), "fp32": jnp.dtype(jnp.float32)}
"""Dtypes of matrix products by the names of `config.precision`."""

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # glibc's <malloc.h>
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None

BATCH_AXES = ("data", "fsdp")
"""The axes of the mesh that rows are split over."""


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


def on_cpu() -> bool:
    """Tell whether `target()` is a CPU."""
    return target().platform == "cpu"


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Tell whether this machine's CPU has instructions for bf16 products (AVX-512 BF16)."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()


def compute_dtype(precision: str) -> jnp.dtype:
    """Return the dtype of `"bf16"` or `"fp32"`; empty takes bf16 where the hardware multiplies it.

    Parameters, moments, residual stream, norms, softmax and loss are fp32 either way.

    Raises:
      InputError: another name.
    """
    if not precision:
        slow = on_cpu() and not cpu_multiplies_bf16()
        precision = "fp32" if slow else "bf16"
    if precision not in DTYPES:
        raise InputError(f"precision {precision!r} is not 'bf16' or 'fp32' (or empty to choose)")
    return DTYPES[precision]


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
