# SPDX-License-Identifier: Apache-2.0
"""What a program is compiled for, where that decides how it is written."""

import functools
from pathlib import Path
from typing import NamedTuple

import jax

BATCH_AXES = ("data", "fsdp")
"""The axes of the mesh that rows are split over."""


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


def on_cpu() -> bool:
    """Whether `target()` is a CPU."""
    return target().platform == "cpu"


@functools.cache
def cpu_multiplies_bf16() -> bool:
    """Whether this machine's CPU has instructions for it (AVX-512 BF16)."""
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and "avx512_bf16" in cpuinfo.read_text()
