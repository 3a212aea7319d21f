# SPDX-License-Identifier: Apache-2.0
"""The checks of `bcmb doctor`, each of which returns one finding with its fix.

The first five do without jax, which cannot be imported where its versions do not fit.
"""

import contextlib
import importlib.metadata
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from packaging.requirements import Requirement

LEAST_MEMORY = 4e9
"""Bytes: weights, gradients and both moments of the base model take 2.4e9, libraries 1e9."""
LEAST_DISK = 2e9
"""Bytes: a checkpoint of the base model takes 1.8e9."""
LEAST_DRIVER = {"12": 525, "13": 580}
"""Oldest NVIDIA driver by major version of CUDA (JAX's installation page)."""
SPEED_SECONDS = 3.0
TOLERANCE = {"float32": 1e-4, "bfloat16": 3e-2}
"""Largest difference from the reference attention, of values near 1."""


class Finding(NamedTuple):
    """One line of the report."""

    topic: str
    state: Literal["ok", "note", "wrong"]
    """A note costs a feature or speed; what is wrong makes commands fail."""
    text: str
    fix: str = ""

    def __str__(self) -> str:
        """Return the line: state, topic, what was found, and the fix."""
        return f"{self.state:5}  {self.topic:8}  {self.text}" + f"; {self.fix}" * bool(self.fix)


def _version(name: str, path: Sequence[str]) -> str | None:
    found = importlib.metadata.distributions(name=name, path=list(path))
    return next((each.version for each in found), None)


def _plugins(path: Sequence[str]) -> dict[str, str]:
    """Return the versions of the installed CUDA plugins by CUDA's major version."""
    found = {cuda: _version(f"jax-cuda{cuda}-plugin", path) for cuda in LEAST_DRIVER}
    return {cuda: version for cuda, version in found.items() if version}


def versions(path: Sequence[str] = sys.path) -> Finding:
    """Compare jaxlib and the CUDA plugin with what the metadata of jax asks for.

    Args:
      path: folders of installed packages.
    """
    found = importlib.metadata.distributions(name="jax", path=list(path))
    jax = next(iter(found), None)
    jaxlib = _version("jaxlib", path)
    python = ".".join(map(str, sys.version_info[:3]))
    if jax is None:
        return Finding("versions", "wrong", f"Python {python}, no jax", "pip install bcmb-jax")
    text = f"Python {python}, jax {jax.version}, jaxlib {jaxlib}"
    asked_for = map(Requirement, jax.requires or [])
    asked = next(x for x in asked_for if x.name == "jaxlib" and x.marker is None)
    if jaxlib is None or not asked.specifier.contains(jaxlib, prereleases=True):
        fix = f'pip install "jax=={jax.version}" "{asked}"'
        return Finding("versions", "wrong", f"{text}, which do not fit", fix)
    for cuda, plugin in _plugins(path).items():
        text += f", CUDA {cuda} plugin {plugin}"
        if not asked.specifier.contains(plugin, prereleases=True):  # released with jaxlib
            fix = f'pip install "jax[cuda{cuda}]=={jax.version}"'
            return Finding("versions", "wrong", f"{text}, which do not fit", fix)
    return Finding("versions", "ok", text)


def torch_extra(path: Sequence[str] = sys.path) -> Finding:
    """Look for PyTorch, which only some commands need."""
    if version := _version("torch", path):
        return Finding("torch", "ok", f"torch {version}")
    return Finding(
        "torch",
        "note",
        "not installed: no Composer checkpoints, ONNX or PyTorch baselines",
        'if you need those: pip install "bcmb-jax[torch]"',
    )


def memory(root: Path = Path("/")) -> Finding:
    """Compare the free memory, of the machine and of this container, with the least.

    Args:
      root: where `proc` and `sys` are.
    """
    meminfo = root / "proc/meminfo"
    if not meminfo.is_file():
        return Finding("memory", "note", "unknown on this system", f"have {_gb(LEAST_MEMORY)} free")
    kilobytes = re.search(r"MemAvailable:\s+(\d+)", meminfo.read_text())
    free = int(kilobytes[1]) * 1024 if kilobytes else 0
    text = f"{_gb(free)} free"
    if limit := _container(root / "sys/fs/cgroup"):
        free = min(free, limit[1])
        text = f"{_gb(free)} free (limit of this container {_gb(limit[0])})"
    if free < LEAST_MEMORY:
        fix = f"have {_gb(LEAST_MEMORY)} free: end other programs, or raise the container's limit"
        return Finding("memory", "wrong", text, fix)
    return Finding("memory", "ok", text)


def _container(folder: Path) -> tuple[int, int] | None:
    """Return limit and free bytes of this control group, version 2 or 1; None without a limit."""
    for most, used in (
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ):
        with contextlib.suppress(OSError, ValueError):  # ValueError: "max", which is no limit
            limit = int((folder / most).read_text())
            taken = int((folder / used).read_text())
            stat = (folder / most).with_name("memory.stat").read_text()
            cached = re.search(r"^(?:total_)?inactive_file (\d+)", stat, re.MULTILINE)
            if limit < 2**60:  # version 1 writes a huge number for none
                return limit, limit - taken + (int(cached[1]) if cached else 0)
    return None


def disk(folder: Path) -> Finding:
    """Compare the free space where runs will be written with one checkpoint of the base model."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    free = shutil.disk_usage(there).free
    text = f"{_gb(free)} free in {there}"
    if free < LEAST_DISK:
        fix = f"a checkpoint of the base model takes {_gb(LEAST_DISK)}: make room"
        return Finding("disk", "wrong", text, fix)
    return Finding("disk", "ok", text)


def gpu(proc: Path, path: Sequence[str] = sys.path) -> Finding:
    """Compare NVIDIA's GPUs and driver with the CUDA plugin of JAX.

    Args:
      proc: where the driver describes itself, if `nvidia-smi` is not there.
      path: folders of installed packages.
    """
    plugins, (names, driver) = _plugins(path), _driver(proc)
    if not names:
        if plugins:
            fix = "if there is one, install its driver, or start the container with --gpus all"
            return Finding("GPU", "note", "a CUDA plugin but no NVIDIA GPU", fix)
        return Finding("GPU", "ok", "no NVIDIA GPU; the CPU is used")
    text = f"{len(names)} × {names[0]}, driver {driver or 'of unknown version'}"
    major = int(driver.partition(".")[0] or 0)
    fitting = [cuda for cuda, least in LEAST_DRIVER.items() if major >= least]
    best = fitting[-1] if fitting else "12"
    if driver and not fitting:
        fix = f"update the driver to {LEAST_DRIVER['12']} or newer"
        return Finding("GPU", "wrong", f"{text}, too old for JAX", fix)
    if not plugins:
        fix = f'pip install "bcmb-jax[cuda{best}]"'
        return Finding("GPU", "wrong", f"{text}, but no CUDA plugin, so it is not used", fix)
    if driver and not set(plugins) & set(fitting):
        (cuda, *_) = plugins
        fix = f'update the driver to {LEAST_DRIVER[cuda]}, or pip install "bcmb-jax[cuda{best}]"'
        return Finding("GPU", "wrong", f"{text}, too old for the CUDA {cuda} plugin", fix)
    return Finding("GPU", "ok", text)


def _driver(proc: Path) -> tuple[list[str], str]:
    """Return the names of the GPUs and the driver's version, which may be ""."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        lines = subprocess.run(query, capture_output=True, text=True, check=True, timeout=20).stdout
        rows = [line.rpartition(",") for line in lines.splitlines() if "," in line]
        if rows:
            return [name.strip() for name, _, _ in rows], rows[0][2].strip()
    found = sorted((proc / "driver/nvidia/gpus").glob("*/information"))
    names = [re.search(r"Model:\s*(.+)", each.read_text()) for each in found]
    version = proc / "driver/nvidia/version"
    text = version.read_text() if version.is_file() else ""
    driver = re.search(r"\b(\d{3}\.\d+[.\d]*)", text)
    return [name[1] if name else "NVIDIA GPU" for name in names], driver[1] if driver else ""


def device() -> Finding:
    """Ask JAX for its device."""
    try:
        from bcmb_jax.device import describe_device, resolve_precision

        found = describe_device()
        text = f"{found['count']} × {found['kind']}, trains in {resolve_precision()}"
    except (ImportError, RuntimeError, AssertionError) as error:  # the last has no message
        text = str(error).strip().partition("\n")[0][:200] or "no such device"
        chosen = os.environ.get("JAX_PLATFORMS")
        fix = f"unset JAX_PLATFORMS (now {chosen})" if chosen else "mend what stands above"
        return Finding("device", "wrong", f"JAX does not start: {text}", fix)
    if found["platform"] == "cpu" and _driver(Path("/proc"))[0] and _plugins(sys.path):
        hidden = [x for x in ("JAX_PLATFORMS", "CUDA_VISIBLE_DEVICES") if x in os.environ]
        fix = f"unset {' and '.join(hidden)}" if hidden else "see JAX's warning above"
        return Finding("device", "wrong", f"{text}, although there is a GPU", fix)
    return Finding("device", "ok", text)


def program_cache() -> Finding:
    """Write a file where compiled programs are kept."""
    from bcmb_jax.programs import own_folder

    try:
        folder = own_folder()
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x" * 4096)
    except (OSError, RuntimeError) as error:
        fix = "set XDG_CACHE_HOME to a folder that only you can write"
        return Finding("cache", "wrong", f"{error}, so each start compiles anew", fix)
    return Finding("cache", "ok", f"compiled programs are kept in {folder}")


def self_test() -> Finding:
    """Compute attention, a loss and its gradient of a small model, and time them."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from bcmb_jax.attention import attention
    from bcmb_jax.device import compute_dtype, products_in, resolve_precision
    from bcmb_jax.losses import masked_lm_sums
    from bcmb_jax.model.config import ModelConfig
    from bcmb_jax.model.heads import ModernBertForMaskedLM
    from bcmb_jax.model.parameters import init_parameters, merge, split

    fix = "report the lines above with your device and versions"
    precision = resolve_precision()
    dtype = compute_dtype(precision)
    rows, length, vocabulary = 4, 256, 512
    segments = jnp.repeat(jnp.array([[1, 2]] * rows), length // 2, 1)
    positions = jnp.tile(jnp.arange(length // 2), (rows, 2))
    tokens = jax.random.randint(jax.random.key(0), (rows, length), 5, vocabulary)
    q, k, v = jax.random.normal(jax.random.key(1), (3, rows, length, 2, 64)).astype(dtype)

    with products_in(precision):
        for window in (64, None):
            ours, exact = (
                attention(q, k, v, segment_ids=segments, window=window, implementation=name)
                for name in (None, "reference")
            )
            apart = float(jnp.abs(ours.astype(jnp.float32) - exact.astype(jnp.float32)).max())
            if not apart <= TOLERANCE[dtype.name]:
                where = "a global layer" if window is None else "a local layer"
                text = f"attention of {where} is {apart:.2g} from its reference"
                return Finding("numerics", "wrong", text, fix)

        config = ModelConfig(vocabulary, 128, 3, 2, 192)

        def make() -> nnx.Module:
            return ModernBertForMaskedLM(config, rngs=nnx.Rngs(0), dtype=dtype)

        graph, _ = split(make)
        parameters = init_parameters(make)
        predicted = jnp.tile(jnp.arange(0, length, 4), (rows, 1))
        targets = jnp.take_along_axis(tokens, predicted, 1)
        weights = jnp.ones(targets.shape, jnp.float32)

        @jax.jit
        @jax.value_and_grad
        def loss_of(parameters):  # type: ignore[no-untyped-def]
            model = merge(graph, parameters)
            hidden = model.hidden_at_positions(tokens, segments, positions, predicted)
            table, bias = model.decoder_weight, model.decoder.bias[...]
            sums = masked_lm_sums(hidden, table, bias, targets, weights, dtype)
            return sums.loss / sums.weight

        began = time.monotonic()
        loss, gradient = jax.block_until_ready(loss_of(parameters))
        compiling = time.monotonic() - began
        norm = float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(gradient))))
        moved = jax.tree.map(lambda p, g: p - 0.02 * g / norm, parameters, gradient)
        after = float(loss_of(moved)[0])
        began, steps = time.monotonic(), 0
        while time.monotonic() - began < SPEED_SECONDS:
            jax.block_until_ready(loss_of(parameters))
            steps += 1
        speed = steps * tokens.size / (time.monotonic() - began)
    text = f"loss {float(loss):.3f}, {after:.3f} after a step along its gradient of norm {norm:.3f}"
    if not after < float(loss):  # also where one of them is not finite
        return Finding("numerics", "wrong", text, fix)
    text = f"{text}; compiled in {compiling:.1f} s, {speed:,.0f} tokens/s of a small model"
    return Finding("numerics", "ok", text)


def _gb(size: float) -> str:
    return f"{size / 1e9:,.1f} GB"
