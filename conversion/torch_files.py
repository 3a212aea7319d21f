# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save, read without running any of their code, and their content as JSON.

A pickle is a program. Here it is read by torch's weights-only interpreter (torch 2.6 or newer;
older ones could be tricked, CVE-2025-32434), which builds tensors, containers and what `_allowed`
names, and refuses the rest before it is called.
"""

import _codecs
import base64
import contextlib
import datetime
import importlib.util
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import ml_dtypes
import numpy as np

from bcmb_jax.errors import InputError, reason

if TYPE_CHECKING:
    import torch

# A JSON object with exactly one of these keys stands for something JSON does not have.
TUPLE, ITEMS, ARRAY, TENSOR, TIME = "__tuple__", "__items__", "__array__", "__tensor__", "__time__"
SHOWN = 5  # names an error lists
SAFE_TORCH = (2, 6)
SCANNED = 2**24  # bytes of a refused pickle that are searched for names

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def load(file: Path) -> object:
    """Load the object in a file; its tensors stay on disk until they are read (`mmap`).

    Raises:
      InputError: naming the file and what is wrong with it, or what it asks for.
    """
    with _torch(file) as torch, torch.serialization.safe_globals(_allowed(torch)):
        if not file.is_file():
            raise InputError(f"{file} does not exist")
        try:
            is_zip = zipfile.is_zipfile(file)
            content: object = torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
        except MemoryError:
            raise
        except Exception as error:  # a hostile file may make torch raise anything
            refused = _refused(file, torch)
            if refused:
                raise InputError(
                    f"{file} asks for {', '.join(refused[:SHOWN])}, which weights do not need; "
                    "nothing of it was run"
                ) from error
            message = reason(error)
            if isinstance(error, pickle.UnpicklingError):  # torch's text is about trusting it
                message = "its pickle holds what weights do not need"
            raise InputError(f"{file} is not a whole file of torch.save: {message}") from error
    return content


def save(tree: object, file: Path) -> None:
    """Write `tree` with torch.save."""
    with _torch(file) as torch:
        torch.save(tree, file)


def arrays(tensors: Mapping[str, object], origin: str | Path) -> dict[str, np.ndarray]:
    """Return CPU tensors as arrays on the same memory.

    Raises:
      InputError: one of them is not a tensor.
    """
    for name, x in tensors.items():
        if not hasattr(x, "numpy"):
            raise InputError(f"{origin}: {name} is {type(x).__name__}, not a tensor")
    return {str(name): array(x) for name, x in tensors.items()}


def array(tensor: "torch.Tensor") -> np.ndarray:
    """Return a CPU tensor as an array on the same memory.

    Raises:
      ValueError: it claims more elements than the file has bytes for.
    """
    import torch

    tensor = tensor.detach()
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of {tuple(tensor.shape)} repeats a smaller one")
    is_bfloat16 = tensor.dtype == torch.bfloat16
    elements: np.ndarray = (tensor.view(torch.int16) if is_bfloat16 else tensor).numpy()
    return elements.view(ml_dtypes.bfloat16) if is_bfloat16 else elements


def tensor(x: np.ndarray) -> "torch.Tensor":
    """Return an array as a CPU tensor, on the same memory where that may be written to."""
    import torch

    if x.dtype == ml_dtypes.bfloat16:
        return tensor(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x if x.flags.writeable and x.flags.c_contiguous else x.copy())


def to_json(tree: object) -> Json:
    """Encode a tree of containers, numbers, strings, times, arrays and CPU tensors as JSON.

    Raises:
      TypeError: something else is in it.
    """
    if tree is None or isinstance(tree, bool | int | float):
        return tree
    if isinstance(tree, str):
        return str(tree)
    if isinstance(tree, dict):
        if all(isinstance(key, str) and not key.startswith("__") for key in tree):
            return {str(key): to_json(value) for key, value in tree.items()}
        return {ITEMS: [[to_json(key), to_json(value)] for key, value in tree.items()]}
    if isinstance(tree, list | tuple):
        values = [to_json(value) for value in tree]
        return {TUPLE: values} if isinstance(tree, tuple) else values
    if isinstance(tree, datetime.timedelta):
        return {TIME: [tree.days, tree.seconds, tree.microseconds]}
    is_tensor = type(tree).__module__.startswith("torch")
    x = array(tree) if is_tensor else tree
    if not isinstance(x, np.ndarray):
        raise TypeError(f"{type(tree).__name__} has no place in a checkpoint")
    packed = [x.dtype.name, list(x.shape), base64.b64encode(x.tobytes()).decode()]
    return {TENSOR if is_tensor else ARRAY: packed}


def from_json(tree: Any) -> Any:
    """Decode a tree that `to_json` encoded; needs torch if it holds a tensor."""
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
        if key in (ARRAY, TENSOR):
            dtype, shape, data = value
            x = np.frombuffer(base64.b64decode(data), dtype).reshape(shape).copy()
            return tensor(x) if key == TENSOR else x
    return {key: from_json(value) for key, value in tree.items()}


def require_torch(user: str | Path) -> None:
    """Raise `InputError` where PyTorch is not installed; `user` is what needs it."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"{user} needs PyTorch, which is not installed: pip install 'bcmb-jax[torch]' (for the "
            "CPU build add --extra-index-url https://download.pytorch.org/whl/cpu)"
        )


@contextlib.contextmanager
def _torch(file: Path) -> Iterator[ModuleType]:
    """Yield torch, without its warnings about the content of files."""
    require_torch(file)
    import torch

    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < SAFE_TORCH:
        raise InputError(f"{file} is not read with torch {torch.__version__}: 2.6 or newer is safe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield torch


def _allowed(torch: ModuleType) -> list[tuple[object, str]]:
    """Return what a Composer checkpoint holds beside tensors and containers, with its pickled name.

    These are wall-clock times, torch's version, and the state of numpy's generator: an array, whose
    constructor numpy 1 and 2 name differently.
    """
    from numpy._core import multiarray

    return [
        (datetime.timedelta, "datetime.timedelta"),
        (torch.torch_version.TorchVersion, "torch.torch_version.TorchVersion"),
        (multiarray._reconstruct, "numpy.core.multiarray._reconstruct"),
        (multiarray._reconstruct, "numpy._core.multiarray._reconstruct"),
        (np.ndarray, "numpy.ndarray"),
        (np.dtype, "numpy.dtype"),
        (np.dtypes.UInt32DType, "numpy.dtypes.UInt32DType"),
        (_codecs.encode, "_codecs.encode"),
    ]


def _refused(file: Path, torch: ModuleType) -> list[str]:
    """Return the names that the pickles in a file ask for beyond those allowed, for the message."""
    allowed = {"collections.OrderedDict", *(name for _, name in _allowed(torch))}
    tensors = ("torch._utils._rebuild_", "torch.storage.", "torch.Size", "torch.device")
    return [
        name
        for name in dict.fromkeys(name for data in _pickles(file) for name in _globals(data))
        if name not in allowed
        and not name.startswith(tensors)
        and not (name.startswith("torch.") and name.endswith("Storage"))
    ]


def _globals(data: bytes) -> Iterator[str]:
    """Yield `module.name` of everything that a pickle imports, up to where it is damaged."""
    strings: list[str] = []
    with contextlib.suppress(Exception):  # not a pickle from here on
        for op, value, _ in pickletools.genops(data):
            if op.name in ("GLOBAL", "INST"):
                yield str(value).replace(" ", ".")
            elif op.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(value, str):
                strings.append(value)


def _pickles(file: Path) -> list[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith(".pkl")]
            return [archive.open(name).read(SCANNED) for name in pickles]
    except Exception:  # not a zip, or one that lies
        with file.open("rb") as stream:
            return [stream.read(SCANNED)]
