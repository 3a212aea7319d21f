# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints: asynchronous, atomic, with checksums of our own.

`<workdir>/checkpoints/<step>/` holds `state` (parameters and optimizer state as arrays) and `meta`
(JSON: counters, position in the data, config, fingerprints, checksums of the arrays and of itself).
A checkpoint restores onto any mesh and any number of processes.
"""

import contextlib
import dataclasses
import logging
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from bcmb_jax.agreements import Agreements, of_checkpoint
from bcmb_jax.errors import InputError, NumericsError, StorageError, reason
from bcmb_jax.files import digest_json, read_json, read_patiently
from bcmb_jax.model.parameters import Parameters
from bcmb_jax.optimizer import StableAdamWState
from bcmb_jax.training.faults import Health, good_health, inspect

log = logging.getLogger(__name__)

VERSION = 2
"""Version of the layout: 1 had no checksum of `meta` and no `health`."""

LITTLE, MOST_TIMES = 2**26, 100
"""Bytes of arrays that any files may hold, and how many times their size they may hold of others.
With moments that are zeros it is 3.4 times."""

Result = TypeVar("Result")


class DamagedCheckpoint(InputError):
    """A checkpoint that cannot be read, or whose tensors are not what was saved."""


class NotFiniteCheckpoint(DamagedCheckpoint):
    """A checkpoint that is what was saved, and holds numbers that are not finite."""

    exit_status = NumericsError.exit_status


class TrainState(NamedTuple):
    """Everything that a step changes."""

    params: Parameters
    opt_state: StableAdamWState | None
    """None only in checkpoints of weights alone (`save_state`)."""
    health: Health | None = None
    """None only outside training, and in checkpoints of version 1."""


@dataclasses.dataclass(frozen=True)
class RunProgress:
    """The point that a run has reached: all that resuming needs beside the arrays.

    Attributes:
      step: optimizer updates made.
      tokens_seen: non-padding tokens, masked ones included.
      tokens_by_source: the same count for each source.
      epoch: the pass over the data, from 0.
      row: the next row of that epoch to train on.
      row_id: that row's number since the start of training.
      agreements: those of all data so far, also of the runs that this one started from.
    """

    step: int = 0
    tokens_seen: int = 0
    tokens_by_source: Mapping[str, int] = dataclasses.field(default_factory=dict)
    epoch: int = 0
    row: int = 0
    row_id: int = 0
    agreements: Agreements = ()

    @property
    def position(self) -> tuple[int, int, int]:
        """The next row for the loader, as `(epoch, row, row_id)`."""
        return self.epoch, self.row, self.row_id


def save_state(
    directory: Path,
    state: TrainState,
    metadata: Mapping[str, Any],
    progress: RunProgress = RunProgress(),
) -> None:
    """Write one checkpoint outside a run, for `load` and a config's `init_from`.

    Raises:
      NumericsError: a number of the state is not finite; nothing is written.
    """
    meta = sealed_meta(state, metadata, progress)
    arrays = {name: tree for name, tree in state._asdict().items() if tree is not None}
    # Orbax copies host arrays, so that training may go on while it writes; here nothing goes on.
    in_place = ocp.type_handlers.NumpyHandler(deepcopy_host_arrays=False)
    registry = ocp.type_handlers.create_type_handler_registry(
        (np.ndarray, in_place), (jax.Array, ocp.type_handlers.ArrayHandler())
    )
    handlers = {
        "state": ocp.PyTreeCheckpointHandler(type_handler_registry=registry),
        "meta": ocp.JsonCheckpointHandler(),
    }
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler(**handlers)) as checkpointer:
        checkpointer.save(
            directory.resolve(),
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(jax.tree.map(np.asarray, arrays)),
                meta=ocp.args.JsonSave(meta),
            ),
        )


def load(directory: Path, like: TrainState | None = None) -> tuple[TrainState, dict[str, Any]]:
    """Load one checkpoint folder and compare its checksums.

    Args:
      like: the state as `jax.ShapeDtypeStruct`s with shardings; None loads host arrays.

    Raises:
      DamagedCheckpoint: the message names the file or the tensor.
      StorageError: the folder cannot be read.
    """
    meta = read_meta(directory)
    state = read_state(directory, like)
    compare(directory, state, meta)
    return with_health(state, like), meta


def read_state(directory: Path, like: TrainState | None) -> TrainState:
    """Read a checkpoint's arrays as `load` does; those of this process's devices alone."""
    return _read(directory, lambda: _restore(directory / "state", like))


def compare(directory: Path, state: TrainState, meta: Mapping[str, Any]) -> None:
    """Refuse arrays without their checksums in `meta`; all processes call this together.

    Raises:
      DamagedCheckpoint: the message names the first tensor.
    """
    found = inspect(state._asdict())
    saved = meta["checksums"]
    wrong = [name for name, value in saved.items() if found.get(name, (None,))[0] != value]
    if wrong or len(found) != len(saved):
        raise DamagedCheckpoint(
            f"checkpoint {directory} is damaged: {len(wrong)} of {len(found)} tensors do not have "
            f"their checksum, first {sorted(wrong)[:1]}"
        )
    not_finite = sorted(name for name, (_, finite) in found.items() if not finite)
    if not_finite:
        raise NotFiniteCheckpoint(
            f"checkpoint {directory} holds numbers that are not finite in {len(not_finite)} of "
            f"{len(found)} tensors, first {not_finite[0]}"
        )


def with_health(state: TrainState, like: TrainState | None) -> TrainState:
    """Return a state with a health, on the devices of `like`, also where none was stored."""
    if like is None or state.health is not None:
        return state
    fresh = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), good_health(), like.health)
    return state._replace(health=fresh)  # version 1 did not keep it


def _restore(folder: Path, like: TrainState | None) -> TrainState:
    handler = ocp.PyTreeCheckpointHandler()
    stored = dict(handler.metadata(folder).tree)
    _check_claims(folder, stored)
    if like is None:
        target: Any = stored
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    else:
        target = {name: tree for name, tree in like._asdict().items() if name in stored}
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    # Not by a Checkpointer, which waits for all processes: one of them may fail here.
    restored = handler.restore(
        folder, args=ocp.args.PyTreeRestore(target, restore_args=restore_args)
    )
    moments, health = restored.get("opt_state"), restored.get("health")
    if isinstance(moments, dict):
        moments = StableAdamWState(**moments)
    if isinstance(health, dict):
        health = Health(**health)
    return TrainState(restored["params"], moments, health)


def _check_claims(folder: Path, stored: Mapping[str, Any]) -> None:
    """Refuse arrays so much larger than their files that they would mostly be made up of zeros."""
    claimed = sum(x.dtype.itemsize * math.prod(x.shape) for x in jax.tree.leaves(stored))
    there = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    if claimed > max(LITTLE, MOST_TIMES * there):
        raise ValueError(f"arrays of {claimed:,} bytes in files of {there:,}")


def _read(directory: Path, read: Callable[[], Result]) -> Result:
    try:
        return read_patiently(directory, read)
    except StorageError:
        raise
    except Exception as error:  # Orbax and TensorStore raise many types for a damaged folder
        raise DamagedCheckpoint(
            f"checkpoint {directory} cannot be read: {reason(error)}"
        ) from error


def read_progress(directory: Path, meta: Mapping[str, Any]) -> RunProgress:
    """Return the progress that stands in `meta`."""
    try:
        return RunProgress(**meta["progress"] | {"agreements": of_checkpoint(meta)})
    except TypeError as error:  # only version 1 gets so far
        raise DamagedCheckpoint(f"checkpoint {directory} is damaged: {reason(error)}") from error


def read_meta(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's metadata and counters.

    Raises:
      DamagedCheckpoint: it is not what was written.
      StorageError: it cannot be read.
    """
    stored = _read(directory, lambda: _restore_meta(directory / "meta"))
    if isinstance(stored, dict) and stored.keys() == {"version", "content", "sha256"}:
        version, content = stored["version"], stored["content"]
        if stored["sha256"] == digest_json([version, content]):
            if version != VERSION:
                raise InputError(
                    f"{directory} is of version {version}, this program reads {VERSION}: update it"
                )
            return dict(content)
    elif isinstance(stored, dict) and {"config", "progress", "checksums"} <= stored.keys():
        log.info("%s is of an early version, whose metadata have no checksum", directory)
        return stored
    raise DamagedCheckpoint(f"checkpoint {directory} is damaged: meta is not what was written")


def _restore_meta(folder: Path) -> object:
    return read_json(folder / "metadata")  # as Orbax does, with a bound


def sealed_meta(
    state: TrainState, metadata: Mapping[str, Any], progress: RunProgress
) -> dict[str, Any]:
    """Return what stands in `meta`: version, content, and the content's checksum.

    Raises:
      NumericsError: a number of the state is not finite.
    """
    found = inspect(state._asdict())
    not_finite = sorted(name for name, (_, finite) in found.items() if not finite)
    if not_finite:
        raise NumericsError(
            f"{len(not_finite)} of {len(found)} tensors after step {progress.step} hold numbers "
            f"that are not finite, first {not_finite[0]}; nothing is saved"
        )
    content = dict(
        metadata,
        progress=dataclasses.asdict(progress),
        checksums={name: checksum for name, (checksum, _) in found.items()},
    )
    return {"version": VERSION, "content": content, "sha256": digest_json([VERSION, content])}


def latest(path: Path) -> Path:
    """Return the newest checkpoint folder that `path` means, as the first of `newest_first`."""
    return newest_first(path)[0]


def newest_first(path: Path) -> list[Path]:
    """Return the checkpoint folders that `path` means: `path` itself, or those of a workdir.

    Raises:
      InputError: there is none.
    """
    if (path / "meta").is_dir():
        return [path.resolve()]
    folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
    steps = [p for p in folder.iterdir() if p.name.isdigit()] if folder.is_dir() else []
    if not steps:
        raise InputError(f"{path} holds no checkpoint (looked for checkpoints/<step>/meta)")
    return [p.resolve() for p in sorted(steps, key=lambda p: -int(p.name))]


def newest_meta(workdir: Path) -> dict[str, Any] | None:
    """Return the metadata of a run's newest checkpoint that is whole; None if there is none."""
    steps = [path for path in (workdir / "checkpoints").glob("*") if path.name.isdigit()]
    for folder in sorted(steps, key=lambda path: -int(path.name)):
        with contextlib.suppress(DamagedCheckpoint):
            return read_meta(folder)
    return None
