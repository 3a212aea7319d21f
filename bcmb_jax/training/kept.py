# SPDX-License-Identifier: Apache-2.0
"""The checkpoints of a run: the newest are kept, and all processes restore the same one."""

import functools
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar, cast

import orbax.checkpoint as ocp

from bcmb_jax.errors import InputError, StorageError
from bcmb_jax.peers import ALONE, Peers
from bcmb_jax.private import make_directory
from bcmb_jax.training.checkpoint import (
    DamagedCheckpoint,
    RunProgress,
    TrainState,
    compare,
    load,
    read_meta,
    read_progress,
    read_state,
    sealed_meta,
    with_health,
)

log = logging.getLogger(__name__)

Result = TypeVar("Result")


class Checkpoints:
    """The folder of a run's checkpoints, of which the newest are kept; for all its processes."""

    def __init__(self, directory: Path, keep: int, peers: Peers = ALONE) -> None:
        keep_policy = ocp.checkpoint_managers.preservation_policy.LatestN(keep)
        options = ocp.CheckpointManagerOptions(
            preservation_policy=keep_policy, cleanup_tmp_directories=True
        )
        self.directory, self._peers = directory.resolve(), peers
        make_directory(self.directory)
        self._aside = self.directory.with_name("checkpoints-damaged")
        self._manager = ocp.CheckpointManager(self.directory, options=options)

    def save(self, state: TrainState, progress: RunProgress, metadata: Mapping[str, Any]) -> None:
        """Write a checkpoint in the background; `metadata` holds JSON values.

        Raises:
          NumericsError: a number of the state is not finite; nothing is written.
        """
        meta = sealed_meta(state, metadata, progress)
        self._manager.save(
            progress.step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state._asdict()), meta=ocp.args.JsonSave(meta)
            ),
        )

    def restore(
        self,
        like: TrainState,
        check: Callable[[Mapping[str, Any]], None],
        before: int | None = None,
    ) -> tuple[TrainState, RunProgress] | None:
        """Load the newest checkpoint that is whole; None where there is none at all.

        A checkpoint that was read and proved wrong is moved aside, and the one before is tried. One
        that could not be read is left where it is, and ends the start. All processes try those that
        process 0 sees, and decide about each together.

        Args:
          like: the state as `jax.ShapeDtypeStruct`s with shardings.
          check: takes a checkpoint's metadata and raises if it is of another run.
          before: take a checkpoint of an earlier step than this.

        Raises:
          InputError: there are checkpoints, and not one is whole.
          StorageError: a checkpoint cannot be read, or not by all processes.
        """
        seen = sorted(self._manager.all_steps(), reverse=True)
        for step in self._peers.gather("checkpoints", seen)[0]:
            if before is not None and step >= before:
                continue
            folder = self.directory / str(step)
            try:
                meta = self._together(folder, functools.partial(read_meta, folder))
                check(meta)
                state = self._together(folder, functools.partial(read_state, folder, like))
                self._together(folder, functools.partial(compare, folder, state, meta))
                return with_health(state, like), read_progress(folder, meta)
            except DamagedCheckpoint as error:
                self._set_aside(step, str(error))
        damaged = len(list(self._aside.iterdir())) if self._aside.is_dir() else 0
        if damaged:
            raise InputError(
                f"none of the {damaged} checkpoints of this run is whole; they are in "
                f"{self._aside}. Start again with a new --workdir, or move one that you trust back "
                f"to {self.directory}/<step>"
            )
        return None

    def close(self) -> None:
        """Wait until the last checkpoint is written."""
        self._manager.close()

    def _together(self, folder: Path, read: Callable[[], Result]) -> Result:
        """Return what `read` returns; raise in all processes what it raises in one.

        Damage that another process alone has met is proved by process 0, on a copy in its memory.
        """
        result, fault = _attempt(read)
        faults = self._peers.gather(f"checkpoint {folder.name}", fault)
        if not any(faults):
            return cast(Result, result)
        if not faults[0]:
            _, proof = _attempt(lambda: load(folder)) if self._peers.place.process == 0 else "", ""
            faults[0] = self._peers.gather(f"proof of checkpoint {folder.name}", proof)[0]
        if not faults[0]:
            number, what = next((i, what) for i, what in enumerate(faults) if what)
            raise StorageError(
                f"process {number} on {self._peers.hosts[number]}: {what}; process 0 on "
                f"{self._peers.hosts[0]} finds it whole; mend the storage there, nothing was moved"
            )
        raise DamagedCheckpoint(faults[0])

    def _set_aside(self, step: int, what: str) -> None:
        source = self.directory / str(step)
        target = self._aside / str(step)
        if self._peers.place.process == 0:
            make_directory(self._aside)
            while target.exists():
                target = target.with_name(f"{target.name}-again")
            source.rename(target)
        log.error("%s; trying the one before (to undo: mv %s %s)", what, target, source)
        self._peers.gather(f"checkpoint {step} set aside", None)
        self._manager.reload()


def _attempt(read: Callable[[], Result]) -> tuple[Result | None, str]:
    try:
        return read(), ""
    except DamagedCheckpoint as error:
        return None, str(error)
