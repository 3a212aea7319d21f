# SPDX-License-Identifier: Apache-2.0
"""The command line of training.

    python scripts/train.py --config configs/NAME.py[:variant] --workdir DIR [--plan]

Rerunning the same command resumes. Exit status: 0 done, 75 stopped by a signal and saved (requeue),
2 something to correct, named in one line. `--config.key=value` overrides a key of configs/base.py.
"""

import dataclasses
import functools
import logging
import os
import sys
from pathlib import Path

import jax
from absl import flags
from ml_collections import config_flags

import conversion
from bcmb_jax.config import RunConfig, check_key
from bcmb_jax.data.synthetic import prepare_synthetic
from bcmb_jax.device import keep_freed_memory
from bcmb_jax.errors import InputError
from bcmb_jax.training.forecast import forecast
from bcmb_jax.training.replay import replay
from bcmb_jax.training.start import with_precision
from bcmb_jax.training.train import train

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))  # configs import each other from here

CONFIG = config_flags.DEFINE_config_file("config", lock_config=True, help_string="The run.")
WORKDIR = flags.DEFINE_string("workdir", None, "The run's folder.", required=True)
PLAN = flags.DEFINE_bool("plan", False, "Print what the run would do, and stop.")
REPLAY = flags.DEFINE_integer("replay", 0, "Make this step again, and tell what is not finite.")
PROFILE = flags.DEFINE_bool("profile", False, "Trace a step, and print where its time goes.")


def main() -> int:
    """Train, or print the plan, as the command line says; return the exit status."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    logging.getLogger("absl").setLevel(logging.WARNING)  # Orbax logs every file it writes
    parse_flags()
    keep_freed_memory()
    if CONFIG.value is None:
        raise InputError("no --config; try --config configs/tiny.py")
    config, workdir = RunConfig.from_dict(CONFIG.value.to_dict()), Path(WORKDIR.value)
    if int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        jax.distributed.initialize()
    if not config.data.train:
        if config.init_from:
            raise InputError("init_from without data.train; name the folders of prepare_data.py")
        notes = prepare_synthetic(workdir / "synthetic", vocab_size=config.model.vocab_size)
        data = dataclasses.replace(config.data, train=(str(notes),))
        config = dataclasses.replace(config, data=data)
    if PLAN.value:
        print(forecast(with_precision(config, workdir)))
        return 0
    keep_compiled(workdir / "compiled")
    load = functools.partial(conversion.load_initial, config.init_from)
    initial = load if config.init_from else None
    if REPLAY.value:
        print(replay(config, workdir, REPLAY.value, initial))
        return 0
    return train(config, workdir, initial, profile=PROFILE.value)


def keep_compiled(directory: Path) -> None:
    """Keep compiled programs for the next start of the run, unless JAX is told where."""
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(directory.resolve()))
    # The key of a GPU kernel would else contain the line numbers of its source.
    jax.config.update("jax_traceback_in_locations_limit", 0)


def parse_flags() -> None:
    """Read the command line and the config file that it names.

    Raises:
      InputError: a key that does not exist, or whatever is wrong in the file.
    """
    for argument in sys.argv[1:]:  # with a better message than ml_collections has
        name = argument.partition("=")[0].lstrip("-")
        if name.startswith("config."):
            check_key(name.removeprefix("config."))
    try:
        flags.FLAGS(sys.argv)
        if CONFIG.value is not None:
            CONFIG.value.to_dict()  # a file that is not there fails only now
    except Exception as error:  # a config file is a program and may raise anything
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"cannot read the config: {reason}") from error
