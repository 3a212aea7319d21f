# SPDX-License-Identifier: Apache-2.0
"""Files of torch.save, read without running any of their code, and their content as JSON.

A pickle is a program. Here it is read by torch's weights-only interpreter (torch 2.6 or newer;
older ones could be tricked, CVE-2025-32434), which builds containers and what `_allowed` names, and
refuses the rest before it is called.
"""

import base64
import contextlib
import datetime
import importlib.util
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from itertools import islice
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
MOST_PICKLE, MOST_PARTS = 2**25, 6_000_000
"""Bytes and parts of a pickle; one that holds a tokenizer of 256,000 entries has a little less."""
MOST_VALUES, MOST_BYTES = 2_500_000, 2**26
"""Values, and their bytes, of a file's content beside the model's tensors."""

_TENSORS = (
    "collections.OrderedDict",
    "torch.Size",
    "torch.device",
    "torch._utils._rebuild_tensor",
    "torch._utils._rebuild_tensor_v2",
    "torch._utils._rebuild_parameter",
)

Json = None | bool | int | float | str | list["Json"] | dict[str, "Json"]


def load(file: Path) -> object:
    """Load the object in a file; its tensors stay on disk until they are read (`mmap`).

    Raises:
      InputError: naming the file and what is wrong with it, or what it asks for.
    """
    with _torch(file) as torch, _reduced(torch) as allowed:
        if not file.is_file():
            raise InputError(f"{file} does not exist")
        try:
            _check_sizes(file)
            content: object = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
        except (MemoryError, InputError):
            raise
        except Exception as error:  # a hostile file may make torch raise anything
            refused = _refused(file, allowed)
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
      ValueError: it is larger than what stands beside a model's tensors can be; a small pickle may
        hold one part many times over.
    """
    return _Encoder().encode(tree)


class _Encoder:
    def __init__(self) -> None:
        self._values = self._bytes = 0

    def _count(self, size: int) -> None:
        self._values, self._bytes = self._values + 1, self._bytes + size
        if self._values > MOST_VALUES or self._bytes > MOST_BYTES:
            raise ValueError(f"more than {MOST_VALUES:,} values or {MOST_BYTES:,} bytes in it")

    def encode(self, tree: object) -> Json:
        self._count(len(tree) if isinstance(tree, str) else 0)
        if tree is None or isinstance(tree, bool | int | float):
            return tree
        if isinstance(tree, str):
            return str(tree)
        if isinstance(tree, dict):
            if all(isinstance(key, str) and not key.startswith("__") for key in tree):
                return {str(key): self.encode(value) for key, value in tree.items()}
            return {ITEMS: [[self.encode(k), self.encode(value)] for k, value in tree.items()]}
        if isinstance(tree, list | tuple):
            values = [self.encode(value) for value in tree]
            return {TUPLE: values} if isinstance(tree, tuple) else values
        if isinstance(tree, datetime.timedelta):
            return {TIME: [tree.days, tree.seconds, tree.microseconds]}
        is_tensor = type(tree).__module__.startswith("torch")
        x = array(tree) if is_tensor else tree
        if not isinstance(x, np.ndarray):
            raise TypeError(f"{type(tree).__name__} has no place in a checkpoint")
        self._count(x.nbytes)
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


@contextlib.contextmanager
def _reduced(torch: ModuleType) -> Iterator[Mapping[str, object]]:
    """Have torch's interpreter build no more than `_allowed`; it has no public way to be told so.

    Its own list allows what a small file can fill any memory with, such as `bytearray(10**12)`, or
    `_codecs.encode` to hexadecimal, each time twice as long.
    """
    from torch import _weights_only_unpickler as interpreter

    theirs, ours = interpreter._get_allowed_globals, _allowed(torch)
    interpreter._get_allowed_globals = lambda: ours
    try:
        yield ours
    finally:
        interpreter._get_allowed_globals = theirs


class _Words(np.ndarray):
    """An array as a Composer checkpoint holds it: 32-bit words, the state of numpy's generator."""

    def __new__(cls, *_: object) -> "_Words":
        return super().__new__(cls, 0, np.uint32)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, (length,), word, _, data = state
        if not isinstance(word, _Word) or len(data) != 4 * length:
            raise pickle.UnpicklingError("an array that is not of 32-bit words")
        checked: tuple[Any, ...] = (1, (length,), np.dtype("<u4"), False, data)
        super().__setstate__(checked)

    def __reduce__(self) -> tuple[object, ...]:
        return tuple(np.asarray(self).__reduce__())  # as any array


class _Word:
    """The type of elements of such an array."""

    def __init__(self, name: str, *_: object) -> None:
        if name != "u4":
            raise pickle.UnpicklingError(f"numbers of type {name}")

    def __setstate__(self, state: tuple[int, str]) -> None:
        if state[1] != "<":
            raise pickle.UnpicklingError("words of another machine")


def _latin1(text: str, encoding: str) -> bytes:
    """Return the bytes that older pickles write as text."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"bytes written in {encoding}")
    return text.encode("latin1")


def _allowed(torch: ModuleType) -> dict[str, object]:
    """Return by its pickled name what a checkpoint may hold beside containers and numbers.

    These are tensors, wall-clock times, torch's version, and the state of numpy's generator: an
    array, whose constructor numpy 1 and 2 name differently.
    """
    from torch import _weights_only_unpickler as interpreter

    kinds = (torch.dtype, torch.serialization.StorageType)
    return {
        **{
            name: value
            for name, value in interpreter._get_allowed_globals().items()
            if name in _TENSORS or isinstance(value, kinds)
        },
        "datetime.timedelta": datetime.timedelta,
        "torch.torch_version.TorchVersion": torch.torch_version.TorchVersion,
        "numpy.core.multiarray._reconstruct": _Words,
        "numpy._core.multiarray._reconstruct": _Words,
        "numpy.ndarray": _Words,
        "numpy.dtype": _Word,
        "_codecs.encode": _latin1,
    }


def _check_sizes(file: Path) -> None:
    """Refuse what torch.save never writes, and torch would read as a whole: packed or huge pickles.

    Raises:
      InputError: a pickle that is too large; ValueError: not a file of torch.save.
    """
    if not zipfile.is_zipfile(file):
        raise ValueError("it is not a zip archive")
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
        if any(part.compress_type != zipfile.ZIP_STORED for part in parts):
            raise ValueError("its parts are compressed")
        pickles = [part for part in parts if part.filename.endswith(".pkl")]
        most = max((part.file_size for part in pickles), default=0)
        # A part of a pickle takes a byte at least, and most take several.
        for part in pickles if MOST_PICKLE >= most > MOST_PARTS else ():
            with contextlib.suppress(ValueError):  # torch will say what is wrong with it
                done = sum(1 for _ in islice(pickletools.genops(archive.read(part)), MOST_PARTS))
                most = MOST_PICKLE + 1 if done == MOST_PARTS else most
    if most > MOST_PICKLE:
        raise InputError(
            f"{file} holds a pickle of more than {MOST_PICKLE:,} bytes or {MOST_PARTS:,} parts "
            "beside its tensors: it is not a checkpoint of a model"
        )


def _refused(file: Path, allowed: Mapping[str, object]) -> list[str]:
    """Return the names that the pickles in a file ask for beyond those allowed, for the message."""
    names = dict.fromkeys(name for data in _pickles(file) for name in _globals(data))
    return [name for name in names if name not in allowed]


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
            return [archive.open(name).read(MOST_PICKLE) for name in pickles]
    except Exception:  # not a zip, or one that lies
        with file.open("rb") as stream:
            return [stream.read(MOST_PICKLE)]
