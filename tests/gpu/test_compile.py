# SPDX-License-Identifier: Apache-2.0
"""The whole training step, compiled for eight H100 or A100 that are not there.

`make gpu-compile` runs this in an environment with JAX's CUDA plugin, which needs neither a GPU nor
a driver. It says nothing of speed, nor of numbers: test_attention, test_norm, test_geglu and
test_rope have those of the kernels.
"""

import dataclasses
import importlib.util
import re
import shutil
import subprocess
import time

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from bcmb_jax.attention import see, self_attention
from bcmb_jax.model.config import BASE, LARGE
from bcmb_jax.model.cost import activation_bytes
from bcmb_jax.ops.cross_entropy_kernels import loss_and_gradient
from bcmb_jax.ops.geglu import geglu
from bcmb_jax.ops.norm import with_kernel
from bcmb_jax.training.forecast import USABLE, state_bytes
from tests.fixtures.collectives import collectives_of
from tests.fixtures.compiled import compile_step
from tests.gpu.targets import GPUS, make_mesh

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("jax_cuda12_plugin"),
    reason="needs JAX's CUDA plugin: make gpu-compile",
)
SIZES = {"base": BASE, "large": LARGE}
LENGTH = 8192
# Rows of 8,192 tokens that each GPU holds at once (RECIPE §4), and whether layers are recomputed.
RECIPE = [
    ("H100", "base", 12, False),
    ("H100", "large", 7, False),
    ("A100", "base", 12, False),
    ("A100", "large", 7, False),
    ("A100-40", "base", 12, True),
    ("A100-40", "large", 7, True),
]


MICROBATCHES = 3  # a loop: the recipe has 6 of base and 11 of large
# What a step of the recipe passes between devices. These numbers may only fall.
AT_MOST = {"collectives": 1, "gradients": 1.0, "sums": 3 * 4}


@pytest.mark.parametrize(("gpu", "size", "rows", "remat"), RECIPE)
def test_training_step_at_the_recipes_rows(gpu, size, rows, remat):
    started = time.perf_counter()
    config = SIZES[size]
    mesh = make_mesh(gpu, 8, 1, 1)
    program, shapes = compile_step(
        mesh, config, rows, LENGTH, microbatches=MICROBATCHES, remat=remat
    )
    seconds = time.perf_counter() - started
    text, memory = program.as_text(), program.memory_analysis()

    # Of every layer rotation, attention forward, dq and dk/dv, GeGLU's gradient, and two norms,
    # in the first layer one, forward and backward. With remat XLA norms what layers take, and
    # rotation and the other norm run again; attention does not. One more is the loss.
    kernels = text.count('custom_call_target="__gpu$xla.gpu.triton"')
    each, not_in_the_first = (10, 1) if remat else (9, 2)
    assert kernels == each * config.num_hidden_layers - not_in_the_first + 1
    # Parameters and both moments are updated in place.
    parameters = sum(x.size for x in shapes.values())
    assert memory.alias_size_in_bytes >= 3 * 4 * parameters
    # It fits, and --plan says what it takes.
    capacity = GPUS[gpu]["device_memory_size"]
    peak = memory.peak_memory_in_bytes
    assert peak <= USABLE * capacity
    # The gradients of a microbatch are added to those of the ones before it.
    forecast = state_bytes(parameters, 2 * parameters) + rows * activation_bytes(
        config, LENGTH, jnp.dtype(jnp.bfloat16), remat
    )
    assert abs(forecast / peak - 1) < 0.1
    # Gradients and the sums of the loss, after the last microbatch; rows stay on their devices.
    found = collectives_of(text)
    assert not [x for x in found if x.in_loop]
    assert {x.kind for x in found} == {"all-reduce"}
    assert len(found) <= AT_MOST["collectives"]
    moved = sum(x.payload for x in found)
    assert moved <= AT_MOST["gradients"] * 4 * parameters + AT_MOST["sums"]
    print(
        f"\n{gpu} {size}, {rows} rows of {LENGTH} a GPU, remat {remat}: {kernels} kernels, "
        f"{len(found)} all-reduce of {moved / 1e6:.1f} MB, peak {peak / 1e9:.2f} GB of "
        f"{capacity / 1e9:.0f} (forecast {forecast / 1e9:.1f}), compiled in {seconds:.0f} s"
    )


def test_the_kernels_compile_for_blackwell():
    """No more than that: nothing of ours has run there."""
    config = dataclasses.replace(BASE, num_hidden_layers=2)
    program, _ = compile_step(make_mesh("B200", 1, 1, 1), config, 2, LENGTH)
    assert program.as_text().count('custom_call_target="__gpu$xla.gpu.triton"') == 9 * 2 - 2 + 1


@pytest.mark.skipif(not shutil.which("ptxas"), reason="needs ptxas (nvidia-cuda-nvcc)")
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("gpu", ["H100", "A100"])
def test_no_registers_spill(gpu, size, tmp_path):
    config, mesh = SIZES[size], make_mesh(gpu, 1, 1, 1)
    here = NamedSharding(mesh, P())
    heads = (config.num_attention_heads, config.head_size)

    def empty(*shape, dtype=jnp.bfloat16):
        return jax.ShapeDtypeStruct((1, LENGTH, *shape), dtype, sharding=here)

    def loss(qkv, inner, x, weight, segment_ids, logits, *rope):
        attended = []
        for window in (None, 64):  # each has a forward kernel of its own
            seen = see(segment_ids, window, qkv.dtype, config.head_size)
            attended.append(self_attention(qkv, rope, seen, window))
        gated = geglu(inner, inner.dtype)
        words = segment_ids[:, :2].astype(jnp.uint32)
        update = x.astype(inner.dtype)
        normed = with_kernel(config.norm_eps, 0.1, inner.dtype, x, update, words, weight)
        squares = sum((y.astype(jnp.float32) ** 2).sum() for y in (*attended, gated, *normed))
        targets = segment_ids[0]
        return squares, loss_and_gradient(logits[0], targets, targets.astype(jnp.float32))

    angles = empty(1, config.head_size // 2, dtype=jnp.float32)
    arguments = [
        empty(3, *heads),
        empty(2, config.intermediate_size),
        empty(config.hidden_size, dtype=jnp.float32),
        jax.ShapeDtypeStruct((config.hidden_size,), jnp.float32, sharding=here),
        empty(dtype=jnp.int32),
        empty(config.vocab_size),
        *(angles, angles),
    ]
    with jax.set_mesh(mesh):
        lowered = jax.jit(jax.grad(loss, argnums=(0, 1, 2, 3), has_aux=True)).lower(*arguments)
        lowered.compile({"xla_dump_to": str(tmp_path), "xla_dump_emitter_re": "ptx|llvm"})
    reports = []
    for path in tmp_path.glob("*.ptx"):
        ptx = path.read_text()
        name = re.search(r"\.entry (rotary|cross_entropy|(?:attention|geglu|norm)_[a-z]+)", ptx)
        if name:
            arch = re.search(r"\.target (\w+)", ptx)
            command = ["ptxas", "-v", f"-arch={arch[1]}", str(path), "-o", "/dev/null"]
            report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
            spilled = [int(n) for n in re.findall(r"(\d+) bytes spill", report)]
            assert spilled, report
            assert not any(spilled), report
            reports.append((name[1], int(re.search(r"Used (\d+) registers", report)[1])))
    assert sorted(name for name, _ in reports) == [
        *("attention_dkv", "attention_dq", "attention_forward", "attention_forward"),
        *("cross_entropy", "geglu_gradient", "norm_forward", "norm_gradient", "rotary"),
    ]
    print(f"\n{gpu} {size} registers a thread, no spills: {sorted(reports)}")
