# SPDX-License-Identifier: Apache-2.0
"""Memory, saved activations and communication of the compiled training step."""

import collections
import dataclasses
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
from tests.fixtures.collectives import collectives_of
from tests.fixtures.compiled import compile_step
from tests.fixtures.tiny_model import TINY

LENGTH = 192  # no other axis of the small model has it
SMALL = dataclasses.replace(TINY, num_hidden_layers=2)


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
@pytest.mark.parametrize(("shape", "scattered"), [((8, 1, 1), False), ((1, 8, 1), True)])
def test_devices_add_their_gradients_up_once_a_step(shape, scattered):
    program, shapes = compile_step(mesh(*shape), SMALL, 1, LENGTH, microbatches=3)
    found = collectives_of(program.as_text())
    assert [x for x in found if x.in_loop] == []
    assert not [x for x in found if str(LENGTH) in "".join(x.shapes)]  # rows stay where they are
    moved = collections.Counter()
    for collective in found:
        moved[collective.kind] += collective.payload
    parameters = 4 * sum(x.size for x in shapes.values())
    if scattered:
        # Norms and biases are whole on every device, so that their gradients are not scattered.
        whole = 4 * sum(x.size for x in shapes.values() if x.ndim == 1)
        assert moved["all-gather"] == moved["reduce-scatter"] == parameters - whole
        # And the sums of the loss; of squares of gradients, of each tensor and of its update.
        assert moved["all-reduce"] <= whole + 4 * (3 + 2 * len(shapes))
    else:
        assert moved == {"all-reduce": parameters + 4 * 3}


def test_rows_that_fit_a_card():
    assert (
        rows_that_fit(6e9, 3e9)
        == "rows_per_microbatch up to 10 on 40 GB, 22 on 80 GB, 40 on 141 GB"
    )
    assert "up to 0 on 40 GB" in rows_that_fit(35e9, 2e9)
