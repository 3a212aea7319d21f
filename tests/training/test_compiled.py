# SPDX-License-Identifier: Apache-2.0
"""Memory, saved activations and communication of the compiled training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import AxisType

from bcmb_jax.model.config import BASE
from bcmb_jax.model.modernbert import ModernBert
from bcmb_jax.model.parameters import merge, split
from bcmb_jax.training.forecast import rows_that_fit
from tests.fixtures.compiled import collectives, compile_step
from tests.fixtures.tiny_model import TINY

LENGTH = 192  # no other axis of the small model has it


def mesh(*shape):
    names = ("data", "fsdp", "tensor")
    devices = jax.devices()[: int(np.prod(shape))]
    return jax.make_mesh(shape, names, (AxisType.Auto,) * 3, devices=devices)


@pytest.mark.slow  # compiles base twice
def test_a_base_step_of_4_rows_of_512_stays_small():
    def bytes_of(remat):
        program, shapes = compile_step(mesh(1, 1, 1), BASE, 4, 512, remat=remat)
        memory = program.memory_analysis()
        state = 3 * 4 * sum(x.size for x in shapes.values())
        assert memory.alias_size_in_bytes >= state  # parameters and moments are updated in place
        return memory.alias_size_in_bytes + memory.temp_size_in_bytes

    assert bytes_of(remat=False) <= 3.7e9
    # All gradients (0.6 GB) are there before the first parameter changes: whether to make the
    # update is decided on all of them.
    assert bytes_of(remat=True) <= 3.65e9


@pytest.mark.slow
def test_encoding_8192_tokens_needs_less_than_1_gb():
    make = functools.partial(ModernBert, BASE, dtype=jnp.dtype(jnp.bfloat16))
    graph, shapes = split(lambda: make(rngs=nnx.Rngs(0)))
    row = jax.ShapeDtypeStruct((1, 8192), jnp.int32)
    run = jax.jit(lambda params, *row: merge(graph, params)(*row))
    assert run.lower(shapes, row, row, row).compile().memory_analysis().temp_size_in_bytes < 1e9


# Splitting over `tensor` as well is in tests/gpu: for a CPU, products are of plain matrices, whose
# merged axes the partitioner does not follow.
@pytest.mark.parametrize("shape", [pytest.param((8, 1, 1), marks=pytest.mark.slow), (1, 8, 1)])
def test_parameters_are_gathered_and_activations_are_not(shape):
    program, _ = compile_step(mesh(*shape), TINY, 1, LENGTH)
    gathered = collectives(program.as_text(), "all-gather")
    assert bool(gathered) == (shape[1] > 1)
    assert not [x for x in gathered if str(LENGTH) in x]


def test_rows_that_fit_a_card():
    assert (
        rows_that_fit(6e9, 3e9)
        == "rows_per_microbatch up to 10 on 40 GB, 22 on 80 GB, 40 on 141 GB"
    )
    assert "up to 0 on 40 GB" in rows_that_fit(35e9, 2e9)
