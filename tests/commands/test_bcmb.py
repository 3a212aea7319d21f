# SPDX-License-Identifier: Apache-2.0
"""The command `bcmb`: help and refusals come at once, before anything slow is imported."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

import bcmb_jax
from bcmb_jax import commands
from bcmb_jax.attention import IMPLEMENTATIONS
from bcmb_jax.commands import COMMANDS
from bcmb_jax.commands.convert import NEXT
from bcmb_jax.commands.options import benchmark, convert, evaluate, train
from bcmb_jax.device import PRECISIONS
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import speed
from bcmb_jax.evaluation.protocol import Settings
from conversion.convert import SERVING, WRITERS

ROOT = Path(__file__).resolve().parents[2]
SLOW = ("jax", "flax", "grain", "transformers", "torch", "pyarrow", "matplotlib", "sklearn")
PROGRAM = f"""
import atexit, sys
atexit.register(lambda: print("slow:", *({{*{SLOW}}} & {{*sys.modules}}), file=sys.stderr))
from bcmb_jax.commands import start
start()
"""
MISTYPED = {
    "train --confg tiny": "there is no option --confg; the nearest is --config",
    "train --config tiny --config.max_tokn=3": "the nearest is config.max_tokens",
    "prepare --inptu notes.csv": "the nearest is --input",
    "evaluate --taks csv": "the nearest is --task",
    "benchmark training --lengts 4": "the nearest is --lengths",
    "trian --config tiny": "there is no command trian; the nearest is train",
}


@pytest.mark.parametrize("arguments", [*(f"{name} --help" for name in COMMANDS), *MISTYPED])
def test_help_and_mistypings_are_answered_within_a_second(arguments) -> None:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments.split()],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=60,
    )
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    *errors, slow = run.stderr.splitlines()
    if arguments in MISTYPED:
        (error,) = errors
        assert error.startswith("error: ")
        assert MISTYPED[arguments] in error
        assert run.returncode == 2
    else:
        assert (run.returncode, errors) == (0, [])
        assert run.stdout.startswith(f"usage: bcmb {arguments.removesuffix(' --help')} ")
    assert slow == "slow:"
    # Seconds of processor: this machine may be busy with other tests.
    assert used.ru_utime - before.ru_utime + used.ru_stime - before.ru_stime < 1


def test_the_version_is_the_same_everywhere() -> None:
    version = bcmb_jax.__version__
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert (ROOT / "CHANGELOG.md").read_text().split("\n## ")[1].startswith(f"[{version}]")


def test_the_help_lists_every_command(capsys) -> None:
    commands.main("--help")
    listed = capsys.readouterr().out
    assert all(f"\n  {name} " in listed for name in COMMANDS)
    commands.main()
    assert capsys.readouterr().out == listed
    commands.main("--version")
    assert capsys.readouterr().out == f"{bcmb_jax.__version__}\n"


def test_options_offer_what_there_is() -> None:
    assert benchmark.ATTENTION == IMPLEMENTATIONS
    assert benchmark.KINDS == speed.KINDS
    assert evaluate.PROTOCOLS == speed.PROTOCOLS
    assert tuple(PRECISIONS) == evaluate.PRECISIONS
    assert (*WRITERS, *SERVING) == convert.FORMATS
    assert tuple(WRITERS) == tuple(NEXT)
    defaults = evaluate.parse(["--list-tasks"])
    assert defaults.documents == speed.DOCUMENTS
    assert Settings(defaults.epochs, defaults.batch_size) == Settings()


def test_an_option_is_not_guessed_from_its_beginning() -> None:
    with pytest.raises(InputError, match="there is no option --mod; the nearest is --model"):
        commands.main("fill-mask", "--mod", "x")


def test_keys_are_overridden_in_every_way_they_can_be_written() -> None:
    line = (
        "--config.seed 3 --config tiny --config.remat --config.mesh.data -1 --config.precision= "
        "--config.learning_rate=1e-4 --config.data.train=a/b,c --config.data.weights=1,2.5 "
        "--config.data.validation=('x',) --plan"
    )
    options = train.parse(line.split())
    values = options.values
    assert (values["seed"], values["remat"], values["mesh"]["data"]) == (3, True, -1)
    assert (values["precision"], values["learning_rate"]) == ("", 1e-4)
    assert values["data"]["train"] == ("a/b", "c")
    assert values["data"]["weights"] == (1.0, 2.5)
    assert values["data"]["validation"] == ("x",)
    assert options.plan
    assert {"seed", "remat", "mesh.data", "data.train"} < options.given
    assert options.workdir == Path("runs/tiny")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--config.seed=x", "config.seed is x; it must be a whole number"),
        ("--config.remat=perhaps", "config.remat is perhaps; it must be True or False"),
        ("--config.data.weights=1,b", "config.data.weights is b; it must be a number"),
        ("--config.data.train=('a", "config.data.train is .'a; it must be a tuple"),
        ("--config=tiny:x", "--config tiny:x: it has no variants; leave out :x"),
        ("--config=phase1:huge", "--config phase1:huge: there is no size 'huge': choose from"),
        ("--config=phase.py", r"phase.py: there is no such file; by name .* \(try --config phase"),
        ("--config=continue:nowhere", "nowhere/train/index.json does not exist: make nowhere with"),
    ],
)
def test_a_wrong_value_is_told_by_its_name(given, message) -> None:
    with pytest.raises(InputError, match=message):
        train.parse(["--config=tiny", given])


def test_a_config_file_of_ones_own(tmp_path) -> None:
    file = tmp_path / "mine.py"
    for package in ("bcmb_jax.configs", "configs"):  # since 0.2, and before
        lines = f"from {package} import tiny\n\ndef get_config(seed='5'):\n"
        lines += "    config = tiny.get_config()\n    config.seed = int(seed)\n    return config\n"
        file.write_text(lines)
        options = train.parse(["--config", f"{file}:8"])
        assert options.values["seed"] == 8
        assert options.workdir == Path("runs/mine-8")
    file.write_text("import nothing_of_this_name\n")
    with pytest.raises(InputError, match=r"mine.py cannot be run: ModuleNotFoundError: No module"):
        train.parse(["--config", str(file)])
