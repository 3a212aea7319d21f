# SPDX-License-Identifier: Apache-2.0
"""What a program is compiled for, where that decides how it is written."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax

BATCH_AXES = ("data", "fsdp")
"""The axes of the mesh that rows are split over."""

BEFORE_AMPERE = re.compile(
    r"[PV]100|P4\b|T\d+G?\b|K80|M40|M60|P40|MX(?!570)|TITAN|GTX|RTX 20[678]0|Quadro"
)


class Target(NamedTuple):
    """The devices that what is traced now will run on."""

    platform: str
    """"cpu", "gpu" or "tpu"."""
    kind: str
    """As the devices name themselves: "NVIDIA H100 80GB HBM3", "cpu"."""


def target() -> Target:
    """The devices of the mesh in use (`jax.set_mesh`), else the default ones.

    A mesh may be of devices that this machine does not have, to compile for them.
    """
    device = jax.sharding.get_abstract_mesh().abstract_device or jax.devices()[0]
    platform = "gpu" if device.platform in ("cuda", "rocm") else device.platform
    return Target(platform, device.device_kind)


def runs_triton(device: Target) -> bool:
    """Whether our kernels for GPUs are made for it: NVIDIA's, from Ampere on."""
    return (
        device.platform == "gpu"
        and "NVIDIA" in device.kind
        and not BEFORE_AMPERE.search(device.kind)
    )


def on_each_device(run: Callable, in_specs: Any, out_specs: Any) -> Callable:
    """`run`, of a kernel, which sees the part of its operands that lies on one device: the
    partitioner knows nothing of a kernel's inside, and would gather all rows on every device."""
    if jax.sharding.get_abstract_mesh().empty:
        return run
    return jax.shard_map(run, in_specs=in_specs, out_specs=out_specs, check_vma=False)


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Whether this machine's CPU has instructions for it (AVX-512 BF16)."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()
