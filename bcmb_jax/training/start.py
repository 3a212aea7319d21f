# SPDX-License-Identifier: Apache-2.0
"""The start of a run: fresh, given or resumed state, its metadata, and the signal to stop."""

import dataclasses
import functools
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bcmb_jax import agreements
from bcmb_jax.attention import IMPLEMENTATIONS
from bcmb_jax.config import RunConfig, decisive_values
from bcmb_jax.data.corpus import Corpus, open_corpus
from bcmb_jax.data.shards import Shards
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.device import compute_dtype, resolve_precision, target
from bcmb_jax.errors import InputError, StorageError, reason
from bcmb_jax.files import new_directory, read_json, write_json
from bcmb_jax.model.heads import ModernBertForMaskedLM
from bcmb_jax.model.parameters import Parameters, init_parameters, split
from bcmb_jax.sharding import (
    AXES,
    batch_shards,
    make_mesh,
    optimizer_shardings,
    parameter_shardings,
    replicated,
)
from bcmb_jax.signals import StopSignal
from bcmb_jax.training.checkpoint import RunProgress, TrainState
from bcmb_jax.training.faults import good_health
from bcmb_jax.training.initial import Initial, check_initial, place_initial
from bcmb_jax.training.kept import Checkpoints

log = logging.getLogger(__name__)


class StopTogether:
    """The decision of all processes to stop after the same step, whichever of them was told to.

    Each call passes this process's flag to the others on the devices, and returns what the call
    before has found there: by then it is computed, so that no device waits.
    """

    def __init__(self, stop: StopSignal, mesh: Mesh):
        self._stop, self._found = stop, None if jax.process_count() == 1 else jnp.zeros((), bool)
        self._sharding = NamedSharding(mesh, P(AXES))
        self._shape = (mesh.size,)
        self._any = jax.jit(jnp.any, out_shardings=replicated(mesh))

    def __call__(self) -> bool:
        """Tell whether to stop now."""
        if self._found is None:
            return self._stop.requested
        before, flag = self._found, np.array([self._stop.requested])
        self._found = self._any(
            jax.make_array_from_callback(self._shape, self._sharding, lambda _: flag)
        )
        return bool(before)


def with_precision(config: RunConfig, workdir: Path) -> RunConfig:
    """Return the configuration with a precision: the given, the recorded or the default one.

    A run that was begun in one precision goes on in it on whatever machine, unless another one is
    asked for, which `check_same_run` refuses.

    Raises:
      InputError: the precision is unknown or not for this device, or the record is damaged.
    """
    record, recorded = workdir / "config.json", ""
    if not config.precision and record.is_file():
        try:
            recorded = read_json(record).get("precision", "")
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(
                f"{record} cannot be read ({reason(error)}); give --config.precision as the run "
                "was begun with"
            ) from error
    precision = resolve_precision(config.precision or recorded)
    why = "given" if config.precision else "as this run was begun" if recorded else "the default"
    log.info("precision %s (%s, on %s)", precision, why, target().kind)
    return dataclasses.replace(config, precision=precision)


class Prepared(NamedTuple):
    """Everything that a run may refuse, opened before anything is written or takes long.

    Attributes:
      microbatches: forward and backward passes of one step.
      make_model: the constructor of the model; it takes `rngs`.
      graph, shapes: the model's structure and its parameters' shapes; no array is made.
    """

    mesh: Mesh
    corpus: Corpus
    microbatches: int
    make_model: Callable[..., ModernBertForMaskedLM]
    graph: nnx.GraphDef[ModernBertForMaskedLM]
    shapes: Parameters


def prepare(config: RunConfig) -> Prepared:
    """Make the mesh, open the data and describe the model.

    Raises:
      InputError: something in the configuration or the data is wrong.
    """
    mesh = make_mesh(config.mesh.data, config.mesh.fsdp, config.mesh.tensor)
    corpus = open_corpus(
        config.data,
        tokenizer=config.tokenizer,
        vocab_size=config.model.vocab_size,
        seed=config.seed,
    )
    for shards in (*corpus.train, *corpus.validation):
        check_maskable(shards, corpus.tokenizer)
    microbatches = config.microbatches(batch_shards(mesh))
    if config.attention not in ("", *IMPLEMENTATIONS):
        raise InputError(f"attention {config.attention!r} is not one of {IMPLEMENTATIONS}")
    make_model = functools.partial(
        ModernBertForMaskedLM,
        config.model,
        dtype=compute_dtype(config.precision),
        implementation=config.attention or None,
        remat=config.remat,
    )
    graph, shapes = split(lambda: make_model(rngs=nnx.Rngs(0)))
    return Prepared(mesh, corpus, microbatches, make_model, graph, shapes)


def begin(
    config: RunConfig,
    prepared: Prepared,
    optimizer: optax.GradientTransformation,
    checkpoints: Checkpoints,
    metadata: Mapping[str, Any],
    load_initial: Callable[[], Initial] | None,
    before: int | None = None,
    license: str = "",
) -> tuple[TrainState, RunProgress]:
    """Return the state to go on from: the newest checkpoint, else given weights, else random ones.

    Args:
      metadata: of this start, which a checkpoint's are compared with.
      load_initial: loads the weights that `config.init_from` names.
      before: take a checkpoint of an earlier step than this.
      license: agreement of all data, also behind the given weights, for which none is on record.

    Raises:
      InputError: the checkpoints or the weights do not belong to this run.
    """
    like = abstract_state(prepared.shapes, optimizer, prepared.mesh)
    workdir = checkpoints.directory.parent
    restored = checkpoints.restore(
        like, lambda meta: check_same_run(meta, metadata, workdir), before
    )
    if restored is not None:
        state, progress = restored
        record = agreements.state(progress.agreements, license)
        return state, dataclasses.replace(progress, agreements=record)
    log.info("no checkpoint in %s: starting from %s", workdir, config.init_from or "random weights")
    initial = load_initial() if load_initial else None
    record = agreements.merge(
        initial.agreements if initial else (), agreements.of_data(metadata["data"], "index.json")
    )
    progress = RunProgress(
        tokens_by_source={x.name: 0 for x in prepared.corpus.train},
        agreements=agreements.state(record, license),
    )
    if initial is None:
        return init_state(prepared.make_model, optimizer, config.seed, like), progress
    check_initial(initial, config, prepared.shapes, prepared.corpus)
    return place_initial(initial, optimizer, like), progress


def check_maskable(shards: Shards, tokenizer: Tokenizer) -> None:
    """Refuse shards of which no token can be masked: there would be nothing to predict.

    Raises:
      InputError: all tokens are `[UNK]` or other special ones.
    """
    special = dataclasses.astuple(tokenizer.special)
    documents = (shards.read(i, 0, int(length)) for i, length in enumerate(shards.lengths))
    if all(np.isin(tokens, special).all() for tokens in documents):  # ends at the first that is not
        unknown = tokenizer.token(tokenizer.special.unk)
        raise InputError(
            f"{shards.directory} holds no token that can be masked: all {shards.index['tokens']:,} "
            f"are {unknown} or other special tokens; prepare it with a tokenizer that knows the "
            "language of its notes"
        )


def abstract_state(
    shapes: Parameters, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """Return the training state as `jax.ShapeDtypeStruct`s with their shardings on the mesh."""
    placed = parameter_shardings(mesh, shapes)
    everywhere = jax.tree.map(lambda _: replicated(mesh), jax.eval_shape(good_health))
    shardings = TrainState(placed, optimizer_shardings(mesh, placed), everywhere)
    state = jax.eval_shape(lambda p: TrainState(p, optimizer.init(p), good_health()), shapes)
    described: TrainState = jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), state, shardings
    )
    return described


def init_state(
    make_model: Callable[..., nnx.Module],
    optimizer: optax.GradientTransformation,
    seed: int,
    like: TrainState,
) -> TrainState:
    """Create random parameters and zero moments, each on the devices where `like` puts it."""

    def make() -> TrainState:
        params = init_parameters(functools.partial(make_model, rngs=nnx.Rngs(seed)))
        return TrainState(params, optimizer.init(params), good_health())

    shardings = jax.tree.map(lambda x: x.sharding, like)
    state: TrainState = jax.jit(make, out_shardings=shardings)()
    return state


def check_room(shapes: Parameters, workdir: Path, begun: os.stat_result) -> None:
    """Refuse a disk that has no room for one more checkpoint, or that is not there any more.

    Args:
      begun: of `workdir` when the run started. If its disk is unmounted since, another folder may
        lie there, or Orbax would make one.

    Raises:
      StorageError: the message names the folder, and both sizes.
    """
    try:
        is_there = os.path.samestat(workdir.stat(), begun)
    except OSError:
        is_there = False
    if not is_there:
        raise StorageError(
            f"{workdir} is gone, or not the folder any more that this run writes (was its disk "
            "unmounted?): bring it back and run the same command again, it goes on from the last "
            "checkpoint"
        )
    needed = 3 * sum(4 * x.size for x in shapes.values())  # parameters and two moments, fp32
    free = shutil.disk_usage(workdir).free
    if free < needed:
        raise StorageError(
            f"{workdir} has {free / 1e6:,.1f} MB free, a checkpoint takes {needed / 1e6:,.1f} MB: "
            "make room, then run the same command again, or name another --workdir"
        )


def fingerprints(corpus: Corpus) -> dict[str, str]:
    """Return what must be the same for all processes of a run: the content of its data."""
    parts = {"training": corpus.train, "validation": corpus.validation}
    found = {f"{name} {s.name}": s.fingerprint for name, part in parts.items() for s in part}
    return {"tokenizer": corpus.tokenizer.fingerprint} | found


def run_metadata(config: RunConfig, corpus: Corpus) -> dict[str, Any]:
    """Return what a checkpoint states about its run beside counters and arrays, as JSON values."""
    return {
        "config": config.as_dict(),
        "tokenizer": {
            "fingerprint": corpus.tokenizer.fingerprint,
            "special": corpus.tokenizer.special.__dict__,
        },
        "tokenizer_reviewed": _reviewed(corpus),
        "data": {
            shards.name: {
                "fingerprint": shards.fingerprint,
                "tokens": shards.index["tokens"],
                "license": shards.index["license"],
            }
            | _canaries(shards)
            for shards in corpus.train
        },
    }


def _canaries(shards: Shards) -> dict[str, int]:
    """Return how many made-up sentences were planted in a source; nothing if none were."""
    planted = shards.index["options"].get("canaries")
    return {"canaries": planted["sentences"]} if planted else {}


def _reviewed(corpus: Corpus) -> str | None:
    """Return the tokenizer's fingerprint if all data were prepared with it as reviewed."""
    reviewed = all(shards.index["tokenizer"].get("reviewed") for shards in corpus.train)
    return corpus.tokenizer.fingerprint if reviewed else None


def check_same_run(before: Mapping[str, Any], now: Mapping[str, Any], workdir: Path) -> None:
    """Refuse to resume a run with other data, or with values that would make it another run.

    Args:
      before: the metadata in the checkpoint.
      now: the metadata of this start.

    Raises:
      InputError: the message names the first difference.
    """
    if list(before["data"].items()) != list(now["data"].items()):  # the plan depends on their order
        raise InputError(
            f"{workdir} was trained on {list(before['data'])}, with other contents or in another "
            f"order than {list(now['data'])} now; use another --workdir"
        )
    kept = decisive_values(before["config"])
    # Older checkpoints hold an empty precision: each start resolved it by the machine it was on.
    kept["precision"] = kept.get("precision") or now["config"]["precision"]
    for key, value in decisive_values(now["config"]).items():
        if kept.get(key) != value:
            raise InputError(
                f"{workdir} was started with {key}={kept.get(key)}, now it is {value}; go back to "
                "that, or start another --workdir (with --config.init_from to take the weights "
                "along)"
            )


def write_run_files(config: RunConfig, corpus: Corpus, workdir: Path) -> None:
    """Write the configuration and the tokenizer beside the checkpoints that they belong to."""
    if jax.process_index() == 0:
        write_json(workdir / "config.json", config.as_dict())
        if not (workdir / "tokenizer").exists():
            with new_directory(workdir / "tokenizer") as folder:
                folder.rmdir()  # the tokenizer makes it
                corpus.tokenizer.save(folder)
