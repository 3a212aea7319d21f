# SPDX-License-Identifier: Apache-2.0
"""Where something was measured: the devices, and the versions and code of what ran on them."""

import contextlib
import importlib.metadata
import os
import platform
import subprocess
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


def commit(checkout: Path = Path(__file__).parents[1]) -> str | None:
    """The commit that `checkout` is at, "+" behind it where its code has changed since; None
    without git, or where the package is installed elsewhere."""
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
