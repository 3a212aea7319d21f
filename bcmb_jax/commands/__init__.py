# SPDX-License-Identifier: Apache-2.0
"""The command `bcmb`, and its table of commands.

A command NAME is two modules: `options.NAME` reads and checks its arguments, in a fraction of a
second because it imports neither jax nor anything else that is slow, and `NAME` then does the work.
"""

import difflib
import sys
from argparse import Namespace
from importlib import import_module
from typing import NoReturn

import bcmb_jax
from bcmb_jax.errors import InputError, run
from bcmb_jax.signals import catch_stop_signals, end_process

COMMANDS = {
    "prepare": "turn text into token shards",
    "train": "train a model on shards, or go on with a run",
    "convert": "convert a model to another format, and prove the copy equal",
    "finetune": "fine-tune a model on your own labels or entities",
    "predict": "predict labels, or entities with their offsets",
    "encode": "turn texts into vectors",
    "fill-mask": "fill masks in texts",
    "evaluate": "score a model on a task, on masked tokens, or its speed",
    "memorization": "measure what a model has kept of its training text",
    "report": "set results of evaluate beside the paper's tables",
    "ledger": "count prepared sources beside the paper's",
    "benchmark": "measure speed, beside PyTorch on request",
    "doctor": "look over this installation and this machine",
}
HELP = f"""usage: bcmb COMMAND …

Continue the pretraining of ModernBERT on biomedical and clinical text, and use the model.

{{}}

bcmb COMMAND --help lists the options of a command, bcmb --version prints {bcmb_jax.__version__}."""


def main(*arguments: str) -> int | None:
    """Run a command and return its exit status, None for 0.

    Args:
      arguments: its name and its options.

    Raises:
      InputError: something to correct in them, found before anything slow is imported.
    """
    name, *rest = arguments or ("--help",)
    if name in ("--help", "-h"):
        print(HELP.format("\n".join(f"  {x:12} {about}" for x, about in COMMANDS.items())))
        return None
    if name == "--version":
        print(bcmb_jax.__version__)
        return None
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        nearest = f"; the nearest is {near[0]}" if near else ""
        raise InputError(f"there is no command {name}{nearest} (bcmb --help lists all)")
    module = name.replace("-", "_")
    options: Namespace = import_module(f"bcmb_jax.commands.options.{module}").parse(rest)
    options.command = ["bcmb", *arguments]  # for those that write it down
    return import_module(f"bcmb_jax.commands.{module}").main(options)


def start(*command: str) -> NoReturn:
    """Run the command line of this process, as `bcmb` and the scripts do, and end the process.

    Args:
      command: a name to put before the arguments, for a script of one command.
    """
    arguments = [*command, *sys.argv[1:]]
    if arguments[:1] == ["train"]:
        catch_stop_signals()  # before the imports that take seconds
        end_process(run(lambda: main(*arguments), *arguments[:1]))
    sys.exit(run(lambda: main(*arguments), *arguments[:1]))
