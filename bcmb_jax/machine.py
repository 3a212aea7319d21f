# SPDX-License-Identifier: Apache-2.0
"""Where something was measured: the devices, and the versions of what ran on them."""

import contextlib
import importlib.metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import jax

from bcmb_jax.device import cpu_multiplies_bf16

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "torch",
    "transformers",
    "flash-attn",
    "flash-attn-4",
    "packed-encoders",
)


def device() -> dict[str, Any]:
    devices = jax.devices()
    facts: dict[str, Any] = {
        "platform": devices[0].platform,
        "kind": devices[0].device_kind,
        "count": len(devices),
    }
    if devices[0].platform == "cpu":
        facts |= {
            "kind": _cpu_model(),
            "cores": len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
            "multiplies_bf16": cpu_multiplies_bf16(),
        }
    return facts


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        # By distribution: FlashAttention-4 alone can be imported as `flash_attn` too.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def _cpu_model() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
