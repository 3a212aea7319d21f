# SPDX-License-Identifier: Apache-2.0
"""Parameters as one flat dict, checkpoint name → array: their form outside the model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx, traverse_util

Parameters = dict[str, Any]


def split(make_model: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef, Parameters]:
    """The structure of a model and its parameters' shapes (`jax.ShapeDtypeStruct`), for free."""
    graph, state = nnx.split(nnx.eval_shape(make_model), nnx.Param)
    return graph, _flatten(state)


def init_parameters(make_model: Callable[[], nnx.Module]) -> Parameters:
    """Freshly initialised parameters; call it under `jax.jit` with `out_shardings`."""
    return _flatten(nnx.state(make_model(), nnx.Param))


def merge(graph: nnx.GraphDef, parameters: Mapping[str, jax.Array]) -> Any:
    """The model that has these parameters, e.g. `merge(graph, parameters)(tokens, …)`."""
    paths = {_path(name): value for name, value in parameters.items()}
    return nnx.merge(graph, traverse_util.unflatten_dict(paths))


def _flatten(state: nnx.State) -> Parameters:
    pure = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    return {".".join(map(str, path)): value for path, value in pure.items()}


def _path(name: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in name.split("."))
