# SPDX-License-Identifier: Apache-2.0
"""The mesh of devices (`data`, `fsdp`, `tensor`), and the sharding of parameters and batches."""

import math
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bcmb_jax.batch import Batch, HostOrDevice
from bcmb_jax.device import BATCH_AXES
from bcmb_jax.errors import InputError
from bcmb_jax.model.parameters import Parameters
from bcmb_jax.optimizer import StableAdamWState

# Ordered: the first pattern that matches the end of a parameter's name decides.
RULES: tuple[tuple[str, P], ...] = (
    (r"tok_embeddings\.weight", P("tensor", "fsdp")),
    (r"attn\.Wqkv\.weight", P(None, "tensor", None, "fsdp")),
    (r"attn\.Wo\.weight", P("fsdp", "tensor", None)),
    (r"mlp\.Wi\.weight", P(None, "tensor", "fsdp")),
    (r"mlp\.Wo\.weight", P("fsdp", "tensor")),
    (r"dense\.weight", P(None, "fsdp")),
    (r"norm\.weight|bias", P()),
)
AXES = ("data", "fsdp", "tensor")

Sums = TypeVar("Sums")  # a tree of arrays


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """Arrange all devices as `data × fsdp × tensor`; `data=-1` takes what the other two leave.

    Raises:
      InputError: the sizes do not multiply to the number of devices.
    """
    devices = jax.device_count()
    if data == -1 and fsdp > 0 and tensor > 0 and devices % (fsdp * tensor) == 0:
        data = devices // (fsdp * tensor)
    if data * fsdp * tensor != devices or min(data, fsdp, tensor) < 1:
        raise InputError(
            f"mesh.data {data} x mesh.fsdp {fsdp} x mesh.tensor {tensor} is not the number of "
            f"devices, {devices}; set mesh.data=-1 to use what the other two leave"
        )
    return jax.make_mesh((data, fsdp, tensor), AXES, (AxisType.Auto,) * 3)


def mesh_for_rows(*rows: int) -> Mesh:
    """Put as many of this process's devices along `data` as divide all these numbers of rows."""
    count = math.gcd(jax.local_device_count(), *rows)
    devices = jax.local_devices()[:count]
    return jax.make_mesh((count, 1, 1), AXES, (AxisType.Auto,) * 3, devices=devices)


def batch_shards(mesh: Mesh | AbstractMesh) -> int:
    """Return the number of devices that the rows of a batch are split over."""
    return int(mesh.shape["data"] * mesh.shape["fsdp"])


def batch_sharding(mesh: Mesh, row_axis: int) -> NamedSharding:
    """Split the rows (axis `row_axis`) over `data × fsdp`, and no other axis."""
    return NamedSharding(mesh, P(*(None,) * row_axis, BATCH_AXES))


def rows_held_here(mesh: Mesh, microbatches: int, rows: int) -> np.ndarray:
    """Return which of the `rows` of a step this process's devices hold, in ascending order.

    Rows follow the devices, not the processes: where `tensor` spans several processes, each of them
    holds the same rows.
    """
    shape = (microbatches, rows // microbatches)
    held = np.zeros(shape, bool)
    for index in batch_sharding(mesh, row_axis=1).addressable_devices_indices_map(shape).values():
        held[index] = True
    return np.flatnonzero(held)


def to_mesh(batch: Batch, mesh: Mesh, microbatches: int, rows: int = 0) -> Batch:
    """Put the rows of a step on the mesh, as `[microbatches, rows, …]`.

    Args:
      batch: the rows that `rows_held_here` names.
      rows: rows of the step over all processes; 0: `batch` holds them all.

    Raises:
      ValueError: `batch` does not have the rows that the devices of this process are to hold.
    """
    rows = rows or len(batch.tokens)
    held = rows_held_here(mesh, microbatches, rows)
    if len(held) != len(batch.tokens):
        raise ValueError(f"{len(batch.tokens)} rows for devices that hold {len(held)} of {rows}")
    of_microbatch = held[: len(held) // microbatches]
    sharding = batch_sharding(mesh, row_axis=1)

    def place(x: HostOrDevice) -> jax.Array:
        here = np.asarray(x).reshape(microbatches, -1, *x.shape[1:])

        def shard(index: tuple[slice, ...] | None) -> np.ndarray:
            assert index is not None  # only of arrays without axes
            first, last, _ = index[1].indices(rows // microbatches)
            return here[:, slice(*np.searchsorted(of_microbatch, (first, last)))]

        shape = (microbatches, rows // microbatches, *x.shape[1:])
        return jax.make_array_from_callback(shape, sharding, shard)

    return Batch(*map(place, batch))


def replicated(mesh: Mesh) -> NamedSharding:
    """Put a whole copy on every device."""
    return NamedSharding(mesh, P())


def parameter_shardings(mesh: Mesh, shapes: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """Return the sharding of each parameter by name; `shapes` have `.shape`.

    Raises:
      InputError: an axis that the mesh does not divide.
    """
    return {name: NamedSharding(mesh, _spec(mesh, name, x.shape)) for name, x in shapes.items()}


def whole_over_fsdp(parameters: Parameters) -> Parameters:
    """Gather the parameters over `fsdp` for a pass; they stay split over `tensor`.

    Without this constraint the partitioner gathers activations, which are many times larger.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return parameters
    return {
        name: jax.lax.with_sharding_constraint(x, _gathered(name)) for name, x in parameters.items()
    }


def sum_over_rows(
    run: Callable[[Parameters, Batch], tuple[Parameters, Sums]],
    parameters: Parameters,
    batch: Batch,
) -> tuple[Parameters, Sums]:
    """Return `run(parameters, batch)` where `run` returns sums over the rows it is given.

    Each device runs on its own rows, and only what it returns is added up over the devices: once,
    however many microbatches it loops over. Left to the partitioner, the gradients of every
    microbatch would be added up over the devices in the loop.

    Args:
      run: returns gradients of the parameters, and other sums.
      batch: arrays of `[microbatches, rows, …]`.

    Returns:
      The gradients: over `fsdp` they are scattered as they are added up, so that a device gets no
      more of them than its share of the parameters. The other sums are on every device.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or batch_shards(mesh) == 1:
        return run(parameters, batch)
    # The partitioner splits over `tensor`, inside of the map. What is gathered or scattered there,
    # but not what is summed, it would first gather over `tensor`. Where `tensor` is not split, the
    # kernels need no map of their own.
    axes, split = set(AXES), {}
    if mesh.shape["tensor"] > 1:
        axes, parameters = set(BATCH_AXES), whole_over_fsdp(parameters)
    elif mesh.shape["fsdp"] > 1:
        split = {x: _rule(x).index("fsdp") for x in parameters if "fsdp" in _rule(x)}
    shards = {
        name: P(*(None,) * split[name], "fsdp") if name in split else P() for name in parameters
    }

    def run_on_own_rows(parameters: Parameters, batch: Batch) -> tuple[Parameters, Sums]:
        for name, axis in split.items():
            whole = jax.lax.all_gather(parameters[name], "fsdp", axis=axis, tiled=True)
            parameters = parameters | {name: whole}
        gradients, sums = run(parameters, batch)
        scattered = {
            name: jax.lax.psum_scatter(gradients[name], "fsdp", scatter_dimension=axis, tiled=True)
            for name, axis in split.items()
        }
        if mesh.shape["data"] > 1:
            scattered = jax.lax.psum(scattered, "data")
        others = {name: x for name, x in gradients.items() if name not in split}
        others, sums = jax.lax.psum((others, sums), BATCH_AXES)
        return scattered | others, sums

    mapped = jax.shard_map(
        run_on_own_rows,
        in_specs=(shards, P(None, BATCH_AXES)),
        out_specs=(shards, P()),
        axis_names=axes,
        check_vma=False,  # kernels do not say over which axes their outputs vary
    )
    return mapped(parameters, batch)


def gathered_shardings(mesh: Mesh, names: Iterable[str]) -> dict[str, NamedSharding]:
    """Return the shardings that `whole_over_fsdp` gives to the parameters of these names."""
    return {name: NamedSharding(mesh, _gathered(name)) for name in names}


def optimizer_shardings(mesh: Mesh, parameters: Parameters) -> StableAdamWState:
    """Put moments where their parameters lie, and counters on every device."""
    everywhere = replicated(mesh)
    # In places of arrays, so not by the class's own typed arguments.
    return StableAdamWState._make((everywhere, everywhere, parameters, parameters, everywhere))


def _spec(mesh: Mesh, name: str, shape: tuple[int, ...]) -> P:
    spec = _rule(name)
    for size, axis in zip(shape, spec, strict=False):
        if axis and size % mesh.shape[axis]:
            raise InputError(
                f"{name} {list(shape)}: its axis of {size} does not divide over "
                f"mesh.{axis}={mesh.shape[axis]}; choose another mesh"
            )
    return spec


def _gathered(name: str) -> P:
    return P(*(axis if axis == "tensor" else None for axis in _rule(name)))


def _rule(name: str) -> P:
    return next(spec for pattern, spec in RULES if re.search(rf"({pattern})$", name))
