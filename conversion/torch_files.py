# SPDX-License-Identifier: Apache-2.0
"""What torch.save wrote, read without running any of it.

A pickle is a program. Here it is read by torch's weights-only interpreter (torch 2.6 or newer;
older ones could be tricked, CVE-2025-32434), which builds tensors, containers and what `_allowed`
names, and refuses the rest before it is called.
"""

import _codecs
import contextlib
import datetime
import importlib.util
import pickle
import pickletools
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bcmb_jax.errors import InputError, reason

SHOWN = 5  # names an error lists
SAFE_TORCH = (2, 6)
SCANNED = 2**24  # bytes of a refused pickle that are searched for names


def load(file: Path) -> Any:
    """The object in a file; its tensors stay on disk until they are looked at (`mmap`).

    Raises:
      InputError: naming the file and what is wrong with it, or what it asks for.
    """
    with _torch(file) as torch, torch.serialization.safe_globals(_allowed(torch)):
        if not file.is_file():
            raise InputError(f"{file} does not exist")
        try:
            is_zip = zipfile.is_zipfile(file)
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
        except MemoryError:
            raise
        except Exception as error:  # a hostile file may make torch raise anything
            refused = _refused(file, torch)
            if refused:
                raise InputError(
                    f"{file} asks for {', '.join(refused[:SHOWN])}, which weights do not need; "
                    "nothing of it was run"
                ) from error
            said = reason(error)
            if isinstance(error, pickle.UnpicklingError):  # torch's text is about trusting it
                said = "its pickle holds what weights do not need"
            raise InputError(f"{file} is not a whole file of torch.save: {said}") from error


def save(tree: Any, file: Path) -> None:
    """Write `tree` with torch.save."""
    with _torch(file) as torch:
        torch.save(tree, file)


def array(tensor: Any) -> np.ndarray:
    """A CPU tensor as an array on the same memory.

    Raises:
      ValueError: it claims more elements than the file has bytes for.
    """
    tensor = tensor.detach()
    if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
        raise ValueError(f"a tensor of {tuple(tensor.shape)} repeats a smaller one")
    if str(tensor.dtype) == "torch.bfloat16":
        import torch

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()


def tensor(x: np.ndarray) -> Any:
    """An array as a CPU tensor, on the same memory where that may be written to."""
    import torch

    if x.dtype == ml_dtypes.bfloat16:
        return tensor(x.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(x if x.flags.writeable and x.flags.c_contiguous else x.copy())


def require_torch(user: str | Path) -> None:
    """Raise `InputError` where PyTorch is not installed; `user` is what needs it."""
    if importlib.util.find_spec("torch") is None:
        raise InputError(
            f"{user} needs PyTorch, which is not installed: pip install 'bcmb-jax[torch]' (for the "
            "CPU build add --extra-index-url https://download.pytorch.org/whl/cpu)"
        )


@contextlib.contextmanager
def _torch(file: Path) -> Iterator[Any]:
    """torch, imported here, with warnings about the inside of files kept from the user."""
    require_torch(file)
    import torch

    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if version < SAFE_TORCH:
        raise InputError(f"{file} is not read with torch {torch.__version__}: 2.6 or newer is safe")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield torch


def _allowed(torch: Any) -> list[tuple[Any, str]]:
    """What a Composer checkpoint holds beside tensors and containers, by the name in the pickle:
    wall-clock times, torch's version, and the state of numpy's generator, an array (whose maker
    numpy 1 and 2 name differently)."""
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


def _refused(file: Path, torch: Any) -> list[str]:
    """Names of what the pickles in a file ask for beyond what is allowed; for the message only."""
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
    """`module.name` of all that a pickle imports, as far as it is one."""
    strings: list[str] = []
    try:
        for op, value, _ in pickletools.genops(data):
            if op.name in ("GLOBAL", "INST"):
                yield str(value).replace(" ", ".")
            elif op.name == "STACK_GLOBAL":
                yield ".".join(strings[-2:])
            elif isinstance(value, str):
                strings.append(value)
    except Exception:  # not a pickle from here on
        return


def _pickles(file: Path) -> Iterator[bytes]:
    try:
        with zipfile.ZipFile(file) as archive:
            for name in archive.namelist():
                if name.endswith(".pkl"):
                    with archive.open(name) as stream:
                        yield stream.read(SCANNED)
    except Exception:  # not a zip, or one that lies
        with contextlib.suppress(OSError), file.open("rb") as stream:
            yield stream.read(SCANNED)
