# SPDX-License-Identifier: Apache-2.0
"""Train a model, or go on with a run.

    bcmb train --config NAME[:variant] [--workdir DIR] [--config.key=value ...] [--plan]

NAME is tiny, continue, phase1 or phase2, or a file (configs/phase1.py:large, my_config.py).
`--config.key=value` overrides a key of it; configs/base.py explains all keys. The folder of the run
is runs/NAME-variant unless --workdir names another. Rerunning the same command resumes.

Exit status: 0 done, 75 stopped by a signal and saved (requeue), 2 something to correct, named in
one line.
"""

import argparse
import difflib
import inspect
import runpy
import sys
from pathlib import Path
from typing import Any

from bcmb_jax import configs, hub, private
from bcmb_jax.commands.options import Parser
from bcmb_jax.config import check_key, key_types, read_value
from bcmb_jax.errors import InputError

CONFIGS = Path(configs.__file__).parent
OVERRIDE = "--config."


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and the config file with its overrides.

    `values` holds the keys of the run, `given` the dotted names of those that were overridden.
    """
    parser = Parser("bcmb train", description=__doc__, others=[OVERRIDE + x for x in key_types()])
    add = parser.add_argument
    add("--config", metavar="NAME", help="the run: a name or a file, perhaps with :variant")
    add("--workdir", type=Path, metavar="DIR", help="its folder (default: runs/NAME-variant)")
    add("--plan", action="store_true", help="print what the run would do, and stop")
    add("--profile", action="store_true", help="trace a step, and print where its time goes")
    add(
        "--replay",
        type=int,
        default=0,
        metavar="STEP",
        help="make this step again, and tell what is not finite",
    )
    hub.add_options(parser)
    private.add_option(parser)
    add("--license", default="", metavar="TEXT", help="agreement of data that has none on record")
    add = parser.add_argument_group("several processes").add_argument
    add("--coordinator", default="", metavar="HOST:PORT", help="where process 0 listens")
    add("--processes", type=int, default=0, metavar="N", help="SLURM and mpirun give it")
    add("--process", type=int, default=-1, metavar="I", help="the number of this one, from 0")
    add("--wait", type=float, default=8.0, metavar="SECONDS", help="for the others at the start")

    own, overrides = _split(arguments)
    for key in overrides:
        check_key(key)
    options = parser.parse_args(own)
    if not options.config:
        raise InputError("no --config; try --config tiny")
    file, variant = find_config(options.config)
    options.values = read_config(options.config, file, variant)
    options.given = set(overrides)
    for key, text in overrides.items():
        *groups, name = key.split(".")
        group = options.values
        for x in groups:
            group = group[x]
        group[name] = read_value(key, text)
    options.workdir_is_given = options.workdir is not None
    options.workdir = options.workdir or default_workdir(file, variant)
    if not options.values["data"]["train"]:
        raise InputError(
            "no data to train on: name the folders that bcmb prepare wrote, "
            "--config.data.train=shards/pubmed,shards/notes"
        )
    return options


def _split(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Split off `--config.key=value`, `--config.key value` and `--config.key`, which is true."""
    own: list[str] = []
    overrides: dict[str, str] = {}
    left = iter(arguments)
    for argument in left:
        if not argument.startswith(OVERRIDE):
            own.append(argument)
            continue
        key, equals, value = argument.removeprefix(OVERRIDE).partition("=")
        if not equals:
            value = "true" if key_types().get(key) is bool else next(left, "")
        overrides[key] = value
    return own, overrides


def find_config(given: str) -> tuple[Path, str]:
    """Return the file and the variant that `--config` names.

    Raises:
      InputError: there is no such file, and none of ours has that name.
    """
    name, _, variant = given.partition(":")
    for file in (Path(name), CONFIGS / f"{name}.py"):
        if file.is_file():
            return file, variant
    ours = sorted(x.stem for x in CONFIGS.glob("*.py") if x.stem not in ("__init__", "base"))
    near = difflib.get_close_matches(Path(name).stem, ours, n=1)
    raise InputError(
        f"--config {name}: there is no such file; by name there are {', '.join(ours)}"
        + (f" (try --config {near[0]})" if near else "")
    )


def read_config(given: str, file: Path, variant: str) -> dict[str, Any]:
    """Run the config file that was `given`, and return the keys of the run.

    Raises:
      InputError: whatever goes wrong in it, which is a program and may raise anything.
    """
    # Files of before 0.2, when ours were no part of the package, import from there.
    sys.modules.setdefault("configs", configs)
    try:
        get_config = runpy.run_path(str(file))["get_config"]
        if variant and not inspect.signature(get_config).parameters:
            raise InputError(f"it has no variants; leave out :{variant}")
        values: dict[str, Any] = get_config(*[variant] if variant else []).to_dict()
        return values
    except Exception as error:
        text = str(error).partition("\n")[0]  # whole: a program is no data
        if isinstance(error, ValueError):  # told by the file itself
            raise InputError(f"--config {given}: {text}") from error
        kind = type(error).__name__
        raise InputError(f"--config {given} cannot be run: {kind}: {text}") from error


def default_workdir(file: Path, variant: str) -> Path:
    """Return `runs/NAME-variant`; of a variant that is a folder, the last part of its path counts.

    A variant that is not given is the default of the file's `get_config`.
    """
    for parameter in inspect.signature(runpy.run_path(str(file))["get_config"]).parameters.values():
        variant = variant or parameter.default
    return Path("runs", "-".join(filter(None, (file.stem, Path(variant).name))))
