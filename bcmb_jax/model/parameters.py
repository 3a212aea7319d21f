# SPDX-License-Identifier: Apache-2.0
"""Parameters as one flat dict, checkpoint name → array: their form outside the model."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
from flax import nnx, traverse_util

Parameters = dict[str, Any]


def split(make_model: Callable[[], nnx.Module]) -> tuple[nnx.GraphDef[Any], Parameters]:
    """Return a model's structure and its parameters' shapes, without computing anything."""
    graph, state = nnx.split(nnx.eval_shape(make_model), nnx.Param)
    return graph, _flatten(state)


def init_parameters(make_model: Callable[[], nnx.Module]) -> Parameters:
    """Return freshly initialised parameters; call it under `jax.jit` with `out_shardings`."""
    return _flatten(nnx.state(make_model(), nnx.Param))


def merge(graph: nnx.GraphDef[Any], parameters: Mapping[str, jax.Array]) -> Any:
    """Return the model that has these parameters: `merge(graph, parameters)(tokens, …)`."""
    paths = {_path(name): value for name, value in parameters.items()}
    return nnx.merge(graph, traverse_util.unflatten_dict(paths))


def _flatten(state: nnx.State[Any, Any]) -> Parameters:
    pure = traverse_util.flatten_dict(nnx.to_pure_dict(state))
    return {".".join(map(str, path)): value for path, value in pure.items()}


def _path(name: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in name.split("."))
