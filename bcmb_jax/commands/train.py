# SPDX-License-Identifier: Apache-2.0
"""Train a model, alone or together with the other processes of a run."""

import argparse
import functools
import hashlib
import logging
import os
import secrets
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax

import conversion
from bcmb_jax import files, hub
from bcmb_jax.cluster import Place, find_place, local_devices
from bcmb_jax.config import RunConfig
from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.device import keep_freed_memory
from bcmb_jax.errors import DONE, PREEMPTED, InputError, reason
from bcmb_jax.peers import Peers
from bcmb_jax.programs import keep_programs
from bcmb_jax.signals import stop_signals
from bcmb_jax.terminal import say_next
from bcmb_jax.training.checkpoint import newest_meta
from bcmb_jax.training.clock import process_start
from bcmb_jax.training.forecast import forecast
from bcmb_jax.training.initial import Initial
from bcmb_jax.training.replay import replay
from bcmb_jax.training.start import with_precision
from bcmb_jax.training.train import train

log = logging.getLogger(__name__)

CLOCK_SECONDS = 30.0
LOCAL_KEYS = ("data.train", "data.validation", "tokenizer")  # compared by their contents

SYNTHETIC = ("synthetic notes",)  # data.train of configs/tiny.py


def main(options: argparse.Namespace) -> int:
    """Train, or print the plan, as the command line says; return the exit status."""
    # By force: a library that was imported has set up the log already, without our messages.
    logging.basicConfig(format="%(message)s", force=True)
    logging.getLogger("bcmb_jax").setLevel(logging.INFO)
    silence_orbax()
    keep_freed_memory()
    values, workdir = options.values, options.workdir
    if not options.workdir_is_given:
        log.info("the run's folder is %s", workdir)
    with stop_signals() as stop:
        place = find_place(os.environ, options.coordinator, options.processes, options.process)
        with Peers(place, options.wait) as peers:
            if place:
                preflight(peers, place, values, workdir)
            if any(peers.gather("signals", stop.requested)):
                return PREEMPTED  # before weights and data are read, which may take long
            return run(options, peers)


def silence_orbax() -> None:
    """Keep from the log what Orbax writes there beside the one error that it raises.

    It logs each file that it writes, and with a traceback each write that fails. Writes that are
    under way at the first failure come back to an event loop that is closed.
    """
    for name in ("absl", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)

    def report(unraisable: "sys.UnraisableHookArgs") -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            sys.__unraisablehook__(unraisable)

    sys.unraisablehook = report


def preflight(peers: Peers, place: Place, values: dict[str, Any], workdir: Path) -> None:
    """Compare what the processes were started with, and join them.

    Raises:
      InputError: a process differs, or does not share the run's folder.
    """
    versions = files.versions("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
    peers.agree("version", versions | {"code": code_digest()})
    given = {key: value for key, value in flattened(values) if key not in LOCAL_KEYS}
    peers.agree("configuration", given)
    clocks = peers.gather("clock", time.time())
    if max(clocks) - min(clocks) > CLOCK_SECONDS:
        late, early = (peers.hosts[clocks.index(f(clocks))] for f in (max, min))
        raise InputError(
            f"the clocks of {late} and {early} differ by {max(clocks) - min(clocks):.0f} s, more "
            f"than {CLOCK_SECONDS:g}: set them"
        )
    check_shared(peers, place.process, workdir)
    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM
    jax.distributed.initialize(
        place.coordinator,
        place.processes,
        place.process,
        local_devices(os.environ),
        cluster_detection_method="deactivate",
        initialization_timeout=60,
        heartbeat_timeout_seconds=60,
        shutdown_timeout_seconds=60,
    )
    devices = {"count": jax.local_device_count(), "kind": jax.local_devices()[0].device_kind}
    peers.agree("number of devices", devices)


def check_shared(peers: Peers, process: int, workdir: Path) -> None:
    """Refuse a folder that a process cannot write, or that is not the same for all of them.

    Raises:
      InputError: the message names the process and the folder.
    """
    marker, failure = workdir / ".preflight", ""
    if process == 0:
        try:
            files.write_text(marker, secrets.token_hex(8))
        except OSError as error:
            failure = f"{workdir} cannot be written ({reason(error)})"
    token = peers.gather("run's folder", "" if process or failure else marker.read_text())[0]
    if not failure:
        try:
            failure = "" if marker.read_text() == token else "another folder"
            files.write_text(workdir / f".preflight-{process}", "")
            (workdir / f".preflight-{process}").unlink()
        except OSError as error:
            failure = f"{workdir} is not shared with process 0, or not writable ({reason(error)})"
    failures = peers.gather("its check", failure)
    if process == 0:
        marker.unlink(missing_ok=True)
    for number, what in enumerate(failures):
        if what:
            raise InputError(f"process {number} on {peers.hosts[number]}: {what}")


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the dotted keys of a configuration and their values, as JSON would hold them."""
    for key, value in values.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{key}.")
        else:
            yield prefix + key, list(value) if isinstance(value, tuple) else value


def code_digest() -> str:
    """Return a checksum of the package's own code."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*.py")):
        digest.update(file.relative_to(package).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def run(options: argparse.Namespace, peers: Peers) -> int:
    """Train, or print what was asked for."""
    values, workdir = options.values, options.workdir
    load_initial: Callable[[], Initial] | None = None
    fetch_named(options)
    if values["init_from"]:
        load_initial = take_sizes(values, options.given, workdir)
    if values["data"]["train"] == SYNTHETIC:
        size = values["model"]["vocab_size"]
        for turn in range(2):  # process 0 makes the notes, then the others find them
            if turn == (peers.place.process > 0):
                notes = prepare_synthetic(workdir / "synthetic", vocab_size=size)
            peers.gather("synthetic notes", None)
        values["data"]["train"] = (str(notes),)
    config = RunConfig.from_dict(values)
    if options.plan:
        print(forecast(with_precision(config, workdir), workdir, load_initial))
        return 0
    keep_programs()
    if options.replay:
        print(replay(config, workdir, options.replay, load_initial))
        return 0
    status = train(
        config,
        workdir,
        load_initial,
        profile=options.profile,
        peers=peers,
        began=process_start(),
        license=options.license,
    )
    if status == DONE and peers.place.process == 0:
        model = workdir.with_name(f"{workdir.name}-model")
        say_next("bcmb convert --input {} --to huggingface --output {}", workdir, model)
    return status


def take_sizes(values: dict[str, Any], given: set[str], workdir: Path) -> Callable[[], Initial]:
    """Set the `model` of a configuration to the sizes of the weights in its `init_from`.

    For a run that has checkpoints these are the sizes that it began with: `init_from` may be gone.

    Args:
      values: the plain values of the configuration.
      given: keys of the command line, such as "model.hidden_size", which stay as they are.

    Returns:
      The function that loads the weights.
    """
    load: Callable[[], Initial]
    load = functools.partial(conversion.load_initial, values["init_from"])
    if (before := newest_meta(workdir)) is not None:
        sizes = before["config"]["model"]
    else:
        loaded = [load()]
        sizes = loaded[0].model.as_dict() if loaded[0].model else {}
        load = loaded.pop  # hands the arrays over: whoever takes them can free them
    for name, value in sizes.items():
        if f"model.{name}" not in given and name != "attention_output_dropout":  # no size
            values["model"][name] = value
    return load


def fetch_named(options: argparse.Namespace) -> None:
    """Fetch what a configuration names on the hub; weights only where no checkpoint is yet."""
    begun = newest_meta(options.workdir) is not None
    for key, what in (("tokenizer", "tokenizer"), ("init_from", "model")):
        if (name := options.values[key]) and not (begun and what == "model"):
            hub.fetch(name, what, online=options.online, token_file=options.hub_token_file)
