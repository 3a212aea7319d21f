# SPDX-License-Identifier: Apache-2.0
"""Bytes that devices exchange in a step, on other meshes than the recipe's, and on 64 GPUs.

`test_compile` has the recipe's mesh: eight devices, each of which holds all parameters.
"""

import collections
import dataclasses
import importlib.util

import pytest

from bcmb_jax.model.config import BASE, LARGE
from tests.fixtures.collectives import collectives_of
from tests.fixtures.compiled import compile_step
from tests.gpu.targets import make_mesh

pytestmark = pytest.mark.skipif(
    not importlib.util.find_spec("jax_cuda12_plugin"),
    reason="needs JAX's CUDA plugin: make gpu-compile",
)
LENGTH = 8192
THREE_LAYERS = dataclasses.replace(BASE, num_hidden_layers=3)  # a global one, two local


def moved(found):
    """Return the bytes and the number of collectives of each kind."""
    payload, number = collections.Counter(), collections.Counter(x.kind for x in found)
    for collective in found:
        payload[collective.kind] += collective.payload
    return payload, number


# How many collectives of each kind a step has outside of loops. These numbers may only fall.
FSDP = {
    (1, 8, 1): {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 2},
    (2, 4, 1): {"all-gather": 1, "reduce-scatter": 1, "all-reduce": 3},
}


@pytest.mark.parametrize("shape", FSDP)
def test_gradients_are_scattered_once_a_step_where_parameters_are_split(shape):
    program, shapes = compile_step(
        make_mesh("H100", *shape), THREE_LAYERS, 1, LENGTH, microbatches=3
    )
    found = collectives_of(program.as_text())
    assert not [x for x in found if x.in_loop]
    payload, number = moved(found)
    assert number <= collections.Counter(FSDP[shape])
    # Norms and biases are whole on every device.
    whole = 4 * sum(x.size for x in shapes.values() if x.ndim == 1)
    split = 4 * sum(x.size for x in shapes.values()) - whole
    assert payload["all-gather"] <= split
    assert payload["reduce-scatter"] <= split
    data, fsdp, _ = shape
    others = 4 * (3 + 2 * len(shapes))  # sums of the loss, and two norms of each tensor
    assert payload["all-reduce"] <= whole + others + (split / fsdp if data > 1 else 0)
    print(f"\nH100 base of 3 layers, {shape}: {dict(number)}, MB {_in_mb(payload)}")


def test_only_activations_are_added_up_in_a_loop_where_products_are_split():
    program, shapes = compile_step(
        make_mesh("H100", 2, 2, 2), THREE_LAYERS, 1, LENGTH, microbatches=3
    )
    found = collectives_of(program.as_text())
    # Two devices share a product, four others' gradients are added to theirs.
    assert {(x.kind, x.devices) for x in found if x.in_loop} == {("all-reduce", 2)}
    payload, number = moved([x for x in found if not x.in_loop])
    assert number <= collections.Counter({"all-gather": 2, "all-reduce": 4})
    half = 4 * sum(x.size for x in shapes.values()) / 2
    # What is not split over `tensor`, the head's product, norms and biases, is passed whole.
    assert payload["all-gather"] <= 1.02 * half
    assert payload["all-reduce"] <= 1.02 * half
    print(f"\nH100 base of 3 layers, 2 x 2 x 2: {dict(number)}, MB {_in_mb(payload)}")


# docs/gpu.md, "64 GPUs on paper", says where these come from.
TOKENS_PER_SECOND = 190_000  # of large on one GPU
BYTES_PER_SECOND = 8 * 46e9  # out of and into a host, over its eight InfiniBand ports
MOST_MEMORY = 49.3e9  # may only fall


def test_large_on_eight_hosts_of_eight():
    rows, microbatches, mesh = 5, 2, make_mesh("H100", 64, 1, 1, hosts=8)
    program, shapes = compile_step(mesh, LARGE, rows, LENGTH, microbatches=microbatches)
    (reduction,) = collectives_of(program.as_text())
    assert (reduction.kind, reduction.devices, reduction.in_loop) == ("all-reduce", 64, False)
    assert reduction.payload <= 4 * sum(x.size for x in shapes.values()) + 4 * 3
    peak = program.memory_analysis().peak_memory_in_bytes
    assert peak <= MOST_MEMORY
    computing = rows * microbatches * LENGTH / TOKENS_PER_SECOND
    # In a ring, each byte leaves and enters every host twice, but for the 64th part.
    adding = 2 * 63 / 64 * reduction.payload / BYTES_PER_SECOND
    efficiency = computing / (computing + adding)
    assert efficiency >= 0.98
    print(
        f"\nH100 large on 8 x 8, {microbatches} microbatches of {rows} rows a GPU: "
        f"{reduction.payload / 1e6:.1f} MB in one all-reduce, peak {peak / 1e9:.2f} GB; "
        f"{computing * 1e3:.0f} ms + {adding * 1e3:.1f} ms, efficiency {efficiency:.3f}"
    )


def _in_mb(payload):
    return {kind: round(size / 1e6, 1) for kind, size in payload.items()}
