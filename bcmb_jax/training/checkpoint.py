# SPDX-License-Identifier: Apache-2.0
"""Orbax checkpoints: asynchronous, atomic, with checksums of our own.

`<workdir>/checkpoints/<step>/` holds `state` (parameters and optimizer state as arrays) and `meta`
(JSON: counters, position in the data, config, fingerprints, checksums). A checkpoint restores onto
any mesh and any number of processes.
"""

import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jax import lax

from bcmb_jax.errors import InputError, reason
from bcmb_jax.model.parameters import Parameters
from bcmb_jax.optimizer import StableAdamWState

log = logging.getLogger(__name__)


class DamagedCheckpoint(InputError):
    """A checkpoint that cannot be read, or whose tensors are not what was saved."""


class TrainState(NamedTuple):
    """Everything that a step changes."""

    params: Parameters
    opt_state: StableAdamWState | None
    """None only in checkpoints of weights alone (`save_state`)."""


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
    """

    step: int = 0
    tokens_seen: int = 0
    tokens_by_source: Mapping[str, int] = dataclasses.field(default_factory=dict)
    epoch: int = 0
    row: int = 0
    row_id: int = 0

    @property
    def position(self) -> tuple[int, int, int]:
        """The next row for the loader, as `(epoch, row, row_id)`."""
        return self.epoch, self.row, self.row_id


class Checkpoints:
    """The folder of a run's checkpoints, of which the newest are kept."""

    def __init__(self, directory: Path, keep: int) -> None:
        keep_policy = ocp.checkpoint_managers.preservation_policy.LatestN(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep_policy, cleanup_tmp_directories=True
        )
        self.directory = directory.resolve()
        self._aside = self.directory.with_name("checkpoints-damaged")
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, progress: RunProgress, metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint in the background; `metadata` holds JSON values."""
        meta = dict(metadata, progress=dataclasses.asdict(progress), checksums=checksums(state))
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state._asdict()), meta=ocp.args.JsonSave(meta)
            ),
        )

    def restore(
        self, like: TrainState, check: Callable[[Mapping[str, Any]], None]
    ) -> tuple[TrainState, RunProgress] | None:
        """Load the newest checkpoint that is whole; None where there is none at all.

        Damaged checkpoints are moved aside, and the one before is tried.

        Args:
          like: the state as `jax.ShapeDtypeStruct`s with shardings.
          check: takes a checkpoint's metadata and raises if it is of another run.

        Raises:
          InputError: there are checkpoints, and not one is whole.
        """
        for step in sorted(self._manager.all_steps(), reverse=True):
            folder = self.directory / str(step)
            try:
                check(read_meta(folder))
                state, meta = load(folder, like)
                return state, RunProgress(**meta["progress"])
            except DamagedCheckpoint as error:
                log.error("%s; trying the one before", str(error))
                self._set_aside(step)
        damaged = len(list(self._aside.iterdir())) if self._aside.is_dir() else 0
        if damaged:
            raise InputError(
                f"none of the {damaged} checkpoints of this run is whole; they were moved to "
                f"{self._aside}; start again with a new --workdir"
            )
        return None

    def close(self) -> None:
        """Wait until the last checkpoint is written."""
        self._manager.close()

    def _set_aside(self, step: int) -> None:
        if jax.process_index() == 0:
            self._aside.mkdir(exist_ok=True)
            target = self._aside / f"{step}-{len(list(self._aside.iterdir()))}"
            (self.directory / str(step)).rename(target)
        self._manager.reload()


def save_state(
    directory: Path,
    state: TrainState,
    metadata: Mapping[str, Any],
    progress: RunProgress = RunProgress(),
) -> None:
    """Write one checkpoint outside a run, for `load` and a config's `init_from`."""
    meta = dict(metadata, progress=dataclasses.asdict(progress), checksums=checksums(state))
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
    """
    meta = read_meta(directory)
    try:
        state = _restore(directory / "state", like)
    except Exception as error:  # as in `read_meta`
        raise _unreadable(directory, error) from error
    read, saved = checksums(state), meta["checksums"]
    wrong = sorted(name for name, value in saved.items() if read.get(name) != value)
    if wrong or len(read) != len(saved):
        raise DamagedCheckpoint(
            f"checkpoint {directory} is damaged: {len(wrong)} of {len(read)} tensors do not have "
            f"their checksum, first {wrong[:1]}"
        )
    return state, meta


def _restore(folder: Path, like: TrainState | None) -> TrainState:
    handler = ocp.PyTreeCheckpointHandler()
    target: Any = dict(handler.metadata(folder).tree) if like is None else like._asdict()
    if like is None:
        restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), target)
    else:
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
    with ocp.Checkpointer(handler) as checkpointer:
        restored = checkpointer.restore(
            folder, args=ocp.args.PyTreeRestore(target, restore_args=restore_args)
        )
    moments = restored.get("opt_state")
    if isinstance(moments, dict):
        moments = StableAdamWState(**moments)
    return TrainState(restored["params"], moments)


def read_meta(directory: Path) -> dict[str, Any]:
    """Read a checkpoint's metadata and counters.

    Raises:
      DamagedCheckpoint: it cannot be read.
    """
    try:
        with ocp.Checkpointer(ocp.JsonCheckpointHandler()) as reader:
            meta: dict[str, Any] = reader.restore(directory / "meta")
    except Exception as error:  # Orbax raises many types for a damaged folder
        raise _unreadable(directory, error) from error
    return meta


def _unreadable(directory: Path, error: Exception) -> DamagedCheckpoint:
    return DamagedCheckpoint(f"checkpoint {directory} cannot be read: {reason(error)}")


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


def checksums(state: TrainState) -> dict[str, int]:
    """Return a number for each tensor that any single flipped bit changes, alike on every mesh."""
    # One tensor at a time: those on the host need not all lie on the device at once.
    return {name: int(_checksum(leaf)) for name, leaf in _named_leaves(state._asdict())}


@jax.jit
def _checksum(x: jax.Array) -> jax.Array:
    bits = lax.bitcast_convert_type(x, jnp.uint32).reshape(-1)
    return jnp.sum(bits * (2 * lax.iota(jnp.uint32, bits.size) + 1), dtype=jnp.uint32)


def _named_leaves(tree: Mapping[str, Any]) -> list[tuple[str, jax.Array]]:
    return [
        (jax.tree_util.keystr(path, simple=True, separator="/"), leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
