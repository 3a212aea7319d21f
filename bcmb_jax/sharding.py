# SPDX-License-Identifier: Apache-2.0
"""One mesh (`data`, `fsdp`, `tensor`), and where every parameter and batch lives on it."""

import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

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


def make_mesh(data: int, fsdp: int, tensor: int) -> Mesh:
    """All devices as `data × fsdp × tensor`; `data=-1` takes what the other two leave.

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
    """As many of this process's devices as divide all these numbers of rows, along `data`."""
    count = math.gcd(jax.local_device_count(), *rows)
    devices = jax.local_devices()[:count]
    return jax.make_mesh((count, 1, 1), AXES, (AxisType.Auto,) * 3, devices=devices)


def batch_shards(mesh: Mesh) -> int:
    """Over how many devices the rows of a batch are split."""
    return mesh.shape["data"] * mesh.shape["fsdp"]


def batch_sharding(mesh: Mesh, row_axis: int) -> NamedSharding:
    """Rows (axis `row_axis`) over `data × fsdp`, everything else whole."""
    return NamedSharding(mesh, P(*(None,) * row_axis, BATCH_AXES))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, P())


def parameter_shardings(mesh: Mesh, shapes: Mapping[str, Any]) -> dict[str, NamedSharding]:
    """The sharding of each parameter by name; `shapes` have `.shape`.

    Raises:
      InputError: an axis that the mesh does not divide.
    """
    return {name: NamedSharding(mesh, _spec(mesh, name, x.shape)) for name, x in shapes.items()}


def whole_over_fsdp(parameters: Parameters) -> Parameters:
    """The parameters as a pass uses them: gathered over `fsdp`, still split over `tensor`.

    Left to itself the partitioner gathers activations instead, which are many times larger. The
    gradient is scattered again where the optimizer takes it.
    """
    if jax.sharding.get_abstract_mesh().empty:
        return parameters
    return {
        name: jax.lax.with_sharding_constraint(x, _gathered(name)) for name, x in parameters.items()
    }


def gathered_shardings(mesh: Mesh, names: Iterable[str]) -> dict[str, NamedSharding]:
    """Where the parameters of `whole_over_fsdp` live."""
    return {name: NamedSharding(mesh, _gathered(name)) for name in names}


def optimizer_shardings(mesh: Mesh, parameters: Parameters) -> StableAdamWState:
    """Moments lie where their parameters lie; counters everywhere."""
    everywhere = replicated(mesh)
    return StableAdamWState(everywhere, everywhere, parameters, parameters, everywhere)


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
