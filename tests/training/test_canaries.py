# SPDX-License-Identifier: Apache-2.0
"""No value of a note leaves its shards in training: a hundred canaries through runs and faults.

The short form is `test_three_refused_updates_in_a_row_stop_the_run` in test_faults.py.
"""

import dataclasses
import functools
import signal
import time
import zlib
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

from bcmb_jax import commands
from bcmb_jax.benchmark import timing
from bcmb_jax.commands.options.benchmark import SIZES
from bcmb_jax.data.loader import Steps
from bcmb_jax.errors import DONE, NumericsError, run
from conversion.convert import convert
from tests.fixtures.canaries import Scanner, hits, note
from tests.fixtures.processes import finish, start
from tests.fixtures.runs import tiny_run, train

pytestmark = pytest.mark.slow

SMALL = (
    *("model.vocab_size=512", "model.hidden_size=32", "model.num_hidden_layers=2"),
    *("model.intermediate_size=48", "data.row_length=128", "data.max_document_length=128"),
    *("train_rows_per_step=4", "max_tokens=6000", "schedule.warmup_tokens=500"),
    *("schedule.decay_tokens=1000", "eval_every=4", "save_every=4", "log_every=1"),
    *("eval_tokens=2000", "precision=fp32"),
)
# A program that takes those of the command, with a loss that is not finite.
SPOILT = (
    "import runpy, sys; del sys.argv[0]; from bcmb_jax.training import step; right = "
    "step.masked_lm_sums; step.masked_lm_sums = lambda *x: (s := right(*x))._replace("
    "loss=s.loss * float('nan')); runpy.run_path(sys.argv[0], run_name='__main__')"
)


def arguments(persons: Path, workdir: Path, *keys: str) -> list[object]:
    overrides = [f"--config.{key}" for key in (*SMALL, f"data.train={persons}", *keys)]
    return ["scripts/train.py", "--config", "tiny", "--workdir", workdir, *overrides]


def said(*command: object, status: int = DONE, **variables: str) -> str:
    """Return what a command prints, which has to end with this status."""
    ((found, text),) = finish([start(*command, **variables)], 300)
    assert found == status, text
    return text


def killed(command: list[object], workdir: Path) -> str:
    """Kill a run once it has written some steps; return what it printed until then."""
    process = start(*command)
    deadline = time.monotonic() + 200
    while process.poll() is None and len(lines(workdir)) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    return finish([process])[0][1]


def lines(workdir: Path) -> list[str]:
    file = workdir / "metrics.jsonl"
    return file.read_text().splitlines() if file.exists() else []


def unpack(compiled: Path) -> bytes:
    """Return the programs that a run keeps, which JAX compresses."""
    found = b""
    for file in filter(Path.is_file, compiled.rglob("*-cache")):
        data = file.read_bytes()
        try:
            found += zlib.decompress(data)
        except zlib.error:
            zstandard = pytest.importorskip("zstandard")
            found += zstandard.ZstdDecompressor().decompressobj().decompress(data)
    return found


def check(text: str, folder: Path, scanner: Scanner) -> None:
    assert not hits(text), text
    assert not scanner.folder(folder)


def test_a_killed_run_leaves_no_value(persons: Path, scanner: Scanner, tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = arguments(persons, run)
    text = said(*command, "--plan") + killed(command, run)
    check(text, tmp_path, scanner)
    compiled = tmp_path / "compiled"
    text = said(*command, "--profile", JAX_COMPILATION_CACHE_DIR=str(compiled))
    assert "the trace is in" in text
    text += said(*command, "--replay", "3")
    check(text, tmp_path, scanner)
    programs = unpack(compiled)
    assert len(programs) > 100_000
    assert not scanner.data(programs)


def test_a_run_that_is_not_finite_leaves_no_value(persons, scanner, tmp_path) -> None:
    command = arguments(persons, tmp_path / "run")
    text = said("-c", SPOILT, *command, status=NumericsError.exit_status)
    assert "training stops" in text
    check(text, tmp_path, scanner)


def test_what_is_made_of_a_run_holds_no_value(
    persons: Path, scanner: Scanner, tmp_path: Path, monkeypatch, capfd
) -> None:
    """Also that the scanner would find the ids of tokens."""
    run_of, out = tmp_path / "run", tmp_path / "out"
    assert train(tiny_run(persons), run_of) == DONE
    monkeypatch.setattr(timing, "SHAPES", ((512, 512, 512),))
    small = dataclasses.replace(SIZES["tiny"], num_hidden_layers=2, vocab_size=2048)
    monkeypatch.setitem(SIZES, "tiny", small)
    timed = ("benchmark", "training", "--data", persons, "--row-length", "128", "--size", "tiny")
    timed = (*timed, "--rounds", "1", "--burst", "1", "--documents", "8", "--steps", "1")
    mlm = ("evaluate", "--task", "mlm", "--data", persons, "--model", run_of)
    for command in (
        ("ledger", persons, "--output", out / "ledger"),
        (*mlm, "--row-length", "128", "--max-tokens", "999", "--output", out / "mlm"),
        ("report", out / "mlm", "--output", out / "tables"),
        ("benchmark", "loader", "--data", persons, "--lengths", "128", "--rounds", "1"),
        (*timed, "--profile", out / "trace", "--output", out / "training.json"),
    ):
        commands.main(*map(str, command))
    convert(str(run_of), "huggingface", out / "copy")
    written = {path.name for path in out.rglob("*")}
    assert written > {"card.md", "results.json", "tables.md", "training.png", "model.safetensors"}
    check("".join(capfd.readouterr()), tmp_path, scanner)
    may = ("/tokens.bin", "/input_files.json")
    assert not scanner.folder(persons, may)
    assert len({hit.rsplit(" ", 1)[1] for hit in scanner.folder(persons)}) > 30


def exhaust() -> None:
    jax.block_until_ready(jnp.zeros(2**45))


def quote(error: type[Exception]) -> None:
    raise error(f"{note(1)} cannot be packed")


@pytest.mark.parametrize(
    ("fail", "message"),
    [
        (exhaust, "RESOURCE_EXHAUSTED"),
        (functools.partial(quote, ValueError), "error: unexpected ValueError"),
        (functools.partial(quote, KeyError), "error: unexpected KeyError"),
        (functools.partial(quote, RuntimeError), "error: unexpected RuntimeError"),
    ],
    ids=["out of memory", "ValueError", "KeyError", "RuntimeError"],
)
def test_a_library_that_fails_over_a_note_does_not_quote_it(
    persons, scanner, tmp_path, monkeypatch, capfd, fail, message
) -> None:
    def read(self):
        fail()
        yield

    monkeypatch.setattr(Steps, "read_ahead", read)
    assert run(lambda: train(tiny_run(persons), tmp_path / "run")) != DONE
    text = "".join(capfd.readouterr())
    assert message in text
    check(text, tmp_path, scanner)
