# SPDX-License-Identifier: Apache-2.0
"""Trees of Python values as JSON and back: what a checkpoint holds beside its weights."""

import base64
import datetime
from typing import Any

import numpy as np

from conversion import torch_files

# A JSON object with exactly one of these keys stands for something JSON does not have.
TUPLE, ITEMS, ARRAY, TENSOR, TIME = "__tuple__", "__items__", "__array__", "__tensor__", "__time__"


def to_json(tree: Any) -> Any:
    """`tree` of containers, numbers, strings, times, arrays and CPU tensors.

    Raises:
      TypeError: something else is in it.
    """
    if tree is None or isinstance(tree, bool | int | float):
        return tree
    if isinstance(tree, str):
        return str(tree)
    if isinstance(tree, dict):
        plain = all(isinstance(key, str) and not key.startswith("__") for key in tree)
        if plain:
            return {str(key): to_json(value) for key, value in tree.items()}
        return {ITEMS: [[to_json(key), to_json(value)] for key, value in tree.items()]}
    if isinstance(tree, list):
        return [to_json(value) for value in tree]
    if isinstance(tree, tuple):
        return {TUPLE: [to_json(value) for value in tree]}
    if isinstance(tree, datetime.timedelta):
        return {TIME: [tree.days, tree.seconds, tree.microseconds]}
    if isinstance(tree, np.ndarray):
        return {ARRAY: _pack(tree)}
    if type(tree).__module__.startswith("torch"):
        return {TENSOR: _pack(torch_files.array(tree))}
    raise TypeError(f"{type(tree).__name__} has no place in a checkpoint")


def from_json(tree: Any) -> Any:
    """What `to_json` was given; needs torch where a tensor was in it."""
    if isinstance(tree, list):
        return [from_json(value) for value in tree]
    if not isinstance(tree, dict):
        return tree
    if len(tree) == 1:
        ((key, value),) = tree.items()
        if key == TUPLE:
            return tuple(from_json(x) for x in value)
        if key == ITEMS:
            return {from_json(k): from_json(x) for k, x in value}
        if key == TIME:
            return datetime.timedelta(*value)
        if key == ARRAY:
            return _unpack(value)
        if key == TENSOR:
            return torch_files.tensor(_unpack(value))
    return {key: from_json(value) for key, value in tree.items()}


def _pack(x: np.ndarray) -> list[Any]:
    return [x.dtype.name, list(x.shape), base64.b64encode(x.tobytes()).decode()]


def _unpack(packed: list[Any]) -> np.ndarray:
    dtype, shape, data = packed
    return np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()
