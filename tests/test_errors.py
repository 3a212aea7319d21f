# SPDX-License-Identifier: Apache-2.0
"""Commands say kind and place of errors that nobody foresaw, and nothing long."""

import ast
import io
import json
import os
import re
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from bcmb_jax import private
from bcmb_jax.data.ingest.encodings import recode
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import LONGEST_MESSAGE, InputError, reason, run
from tests.fixtures.canaries import NAMES, hits

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def caller_keeps_umask_and_hooks(monkeypatch) -> None:
    monkeypatch.setattr(private, "withhold", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


def test_an_unexpected_error_says_kind_and_place_alone(monkeypatch, capfd) -> None:
    def fail() -> None:
        recode(io.BytesIO(), NAMES[3])

    assert run(fail) == 1
    text = capfd.readouterr().err
    assert text.startswith("error: unexpected LookupError (its message may quote data: BCMB_JAX")
    assert "\n  bcmb_jax/data/ingest/encodings.py:" in text
    assert not hits(text)
    monkeypatch.setenv("BCMB_JAX_DEBUG", "1")
    assert run(fail) == 1
    assert "Traceback (most recent call last)" in capfd.readouterr().err


class Panic(BaseException):
    """Stand for a panic of a library in Rust, which is no `Exception`."""


class Removed:
    def __del__(self) -> None:
        raise TypeError(NAMES[4])


def test_errors_outside_of_the_main_path_are_not_quoted(monkeypatch, capfd) -> None:
    def fail(error: BaseException) -> None:
        raise error

    def stop() -> None:
        thread = threading.Thread(target=fail, args=(ValueError(NAMES[5]),))
        thread.start()
        thread.join()
        Removed()
        raise KeyboardInterrupt(NAMES[6])

    monkeypatch.setattr(threading, "excepthook", threading.__excepthook__)
    monkeypatch.setattr(sys, "unraisablehook", sys.__unraisablehook__)
    assert run(stop) == 130
    assert run(partial(fail, Panic(NAMES[7]))) == 1
    text = capfd.readouterr().err
    errors = [line for line in text.splitlines() if line.startswith("error: ")]
    kinds = [re.sub(r" \(its.*", "", line) for line in errors]
    assert kinds == [
        "error: unexpected ValueError",
        "error: unexpected TypeError",
        "error: stopped from the keyboard",
        "error: unexpected Panic",
    ]
    assert not hits(text)


def test_what_a_library_quotes_is_left_out(tmp_path) -> None:
    model = {"type": "BPE", "vocab": {"a": 0}, "merges": [f"{NAMES[1]}"]}
    rest = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
    content = {"version": "1.0", "added_tokens": [], **dict.fromkeys(rest), "model": model}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"not readable: Token … out of vocabulary at line 1"):
        load_tokenizer(str(tmp_path))
    assert reason(KeyError(NAMES[1])) == "KeyError"
    assert reason(ValueError(f'can\'t take "{NAMES[1]}", but 3')) == "can't take …, but 3"
    assert reason(FileNotFoundError(2, "No such file", "'a'")).endswith("'a'\"")


def test_no_message_is_long() -> None:
    assert len(str(InputError("a" * 10**6))) <= LONGEST_MESSAGE


def test_one_function_makes_messages_about_records() -> None:
    """A line's number in another message of a reader would be one that says place its own way."""
    wrong = []
    readers = ("bcmb_jax/data", "bcmb_jax/evaluation/tasks")
    for file in sorted(file for folder in readers for file in (ROOT / folder).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "InputError":
                places = {x.attr for x in ast.walk(node) if isinstance(x, ast.Attribute)}
                places |= {x.id for x in ast.walk(node) if isinstance(x, ast.Name)}
                wrong += [f"{file}:{node.lineno}"] if places & {"line", "lineno"} else []
    assert not wrong, "\n".join(wrong)


ONE_ARRAY_TOO_LARGE = """
import jax.numpy as jnp
jnp.zeros((2**46,), jnp.float32).block_until_ready()
"""


def jax_fails(program: str, command: str, **environment: str) -> tuple[int, str]:
    """Run a program that fails in JAX, as a command; return its status and standard error."""
    wrapped = (
        "import sys\nfrom bcmb_jax.errors import run\n"
        f"sys.exit(run(lambda: exec({program!r}), {command!r}))"
    )
    variables = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    done = subprocess.run(
        [sys.executable, "-c", wrapped], env=variables, capture_output=True, text=True, timeout=60
    )
    return done.returncode, done.stderr


@pytest.mark.parametrize(
    ("command", "fix"),
    [("train", "config.rows_per_microbatch or set config.remat=True"), ("encode", "fewer texts")],
)
def test_out_of_memory_names_the_options_that_save_it(command, fix) -> None:
    status, text = jax_fails(ONE_ARRAY_TOO_LARGE, command, JAX_PLATFORMS="cpu")
    line = text.splitlines()[-1]
    assert line.startswith("error: out of memory")
    assert fix in line
    assert (status, text.count("error: ")) == (2, 1)


@pytest.mark.parametrize("platform", ["cuda", "nonsense"])
def test_a_device_that_is_not_there_is_one_line(platform) -> None:
    status, text = jax_fails("import jax; jax.devices()", "train", JAX_PLATFORMS=platform)
    assert status == 2, text
    line = text.splitlines()[-1]
    assert line.startswith("error: JAX finds no device of the kind asked for (JAX_PLATFORMS is ")
    assert platform in line
