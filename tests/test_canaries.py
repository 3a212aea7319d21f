# SPDX-License-Identifier: Apache-2.0
"""No value of a record is said or written: a hundred canaries through all readers and prepare."""

import base64
import gzip
import io
import json
import random
import re
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax import commands, private
from bcmb_jax.data.ingest import FORMATS, SOURCES
from bcmb_jax.data.ingest import read as read_source
from bcmb_jax.data.ingest.header import is_common
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import LONGEST_MESSAGE, run
from tests.fixtures.canaries import (
    CANARIES,
    COLUMNS,
    FILES,
    NAMES,
    RECORDS,
    Scanner,
    contents,
    hits,
    note,
)
from tests.fixtures.layouts import LAYOUTS
from tests.fixtures.mds_files import write_mds

ROOT = Path(__file__).parents[1]
EVERYTHING = {**FORMATS, **SOURCES}
# One name for each reader, and MIMIC, which marks errors.
READERS = [*{source.reader: name for name, source in EVERYTHING.items()}.values(), "mimic-iii"]
SUFFIXES = {"ade": ".rel", "gzip": ".csv.gz", "jats": ".xml", "pubmed": ".xml", "text": ".txt"}
CONTENTS = contents()


@pytest.fixture(autouse=True)
def caller_keeps_umask_and_hooks(monkeypatch) -> None:
    monkeypatch.setattr(private, "withhold", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)


@pytest.fixture(scope="module")
def scanner(tiny_tokenizer) -> Scanner:
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    return Scanner(lambda text: tokenizer.encode_batch([text])[0].tolist())


def said(main: Callable[[], object], capfd: pytest.CaptureFixture[str]) -> str:
    """Return what a command prints, in whatever way it ends."""
    capfd.readouterr()
    run(lambda: main() and None)
    return "".join(capfd.readouterr())


def check(text: str, what: str, wrong: list[str]) -> None:
    found = hits(text, but=FILES)  # whoever runs a command may see which file it is
    longest = max(map(len, text.splitlines()), default=0)
    if found or longest > LONGEST_MESSAGE + len("error: ") or "unexpected" in text:
        wrong.append(f"{what}: {sorted(found)[:3]}, {longest} characters: {text[-300:]!r}")


def read_all(file: Path, name: str, *columns: str) -> None:
    for _ in read_source([file], name, *columns):
        pass


def check_reader(name: str, kinds: Iterable[str], folder: Path, capfd) -> None:
    """Read files of these kinds as `name`, with columns that are there and that are not."""
    wrong: list[str] = []
    for shard in ("shard.mds", "shard.mds.x"):
        (folder / shard).write_bytes(b"123")
    for kind in kinds:
        first = kind.split(",")[0].split()[0]
        file = folder / f"{FILES[0]}{SUFFIXES.get(first, f'.{first}')}"
        file.write_bytes(CONTENTS[kind])
        for columns in ((), ("text,note", "patient", "label")):
            if EVERYTHING[name].has_columns or not columns:
                text = said(partial(read_all, file, name, *columns), capfd)
                check(text, f"{name} of {kind} {columns}", wrong)
    assert not wrong, "\n".join(wrong)


def test_no_reader_says_a_value(tmp_path: Path, capfd) -> None:
    kinds = [kind for kind in CONTENTS if kind != "csv, wide"]
    for name in READERS:
        check_reader(name, kinds, tmp_path, capfd)
    check_reader("csv", ["csv, wide"], tmp_path, capfd)


@pytest.mark.slow
@pytest.mark.parametrize("name", EVERYTHING)
def test_no_source_says_a_value(name: str, tmp_path: Path, capfd) -> None:
    check_reader(name, CONTENTS, tmp_path, capfd)


def prepare(source: str, folder: Path, tokenizer: Path, *more: str | Path) -> Callable[[], object]:
    given = ("--source", source, "--input", folder, "--tokenizer", tokenizer, *more)
    return partial(commands.main, "prepare", *map(str, given))


def good_inputs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Write inputs with some broken records; return what reads each, by source."""
    rows = "".join(f'{RECORDS[i % 20]},"{note(i)}",{NAMES[i % 30]}\n' for i in range(40))
    lines = "".join(json.dumps({"text": note(i), "mrn": RECORDS[i % 20]}) + "\n" for i in range(40))
    files = {
        f"csv/{FILES[0]}.csv": f'mrn,text,{COLUMNS[0]}\n{rows}{NAMES[0]}\n"{NAMES[1]}",,\n',
        f"csv/{FILES[1]}.csv": f"mrn;text;{COLUMNS[1]}\n{rows.replace(',', ';')}",
        f"jsonl/{FILES[2]}.jsonl": f"{lines}{lines[:50]}\n{json.dumps({'text': [note(1)]})}\n",
        **{f"text/{FILES[i]}.txt": note(i) for i in range(4)},
        f"text/{FILES[4]}.txt": "",
        **{f"pmc/{FILES[i]}.xml": CONTENTS["jats"].decode().replace("&", "") for i in range(3)},
        f"pmc/{FILES[3]}.xml": CONTENTS["jats"].decode(),
    }
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    samples = [[[RECORDS[i % 20].encode(), note(i).encode() * (i > 3)] for i in range(40)]]
    for name in FILES[:2]:
        write_mds(folder / "mds" / name, {"mrn": "str", "text": "str"}, samples)
    grouped = ("--group-column", "mrn", "--text-column", "text")
    alone = {"text": (), "pmc": ()}
    return {"csv": (*grouped, "--exact-duplicates"), "jsonl": grouped, "mds": grouped, **alone}


def test_prepare_writes_no_value(tmp_path, tiny_tokenizer, scanner, capfd) -> None:
    wrong: list[str] = []
    for source, more in good_inputs(tmp_path / "in").items():
        output = tmp_path / "out" / source
        options = (*more, "--output", output, "--validation-fraction", "0.3")
        given = (source, tmp_path / "in" / source, tiny_tokenizer)
        text = said(prepare(*given, *options), capfd)
        assert f"{output}: " in text, text
        check(text, source, wrong)
        assert not hits(text), "names of files are not for a log"
        list_of_names = output / "input_files.json"
        assert stat.S_IMODE(list_of_names.stat().st_mode) == 0o600
        names = json.loads(list_of_names.read_text())
        assert hits(json.dumps(names["left_out"])), "one of them has a record that is left out"
        lines = json.loads((output / "report.json").read_text())["skipped_lines"].values()
        assert set().union(*lines) == names["left_out"].keys()
        check(said(prepare(*given, *options), capfd), f"{source}, again", wrong)
        check(said(prepare(*given, "--peek"), capfd), f"{source}, peek", wrong)
        wrongly = ("--text-column", "body", "--output", tmp_path / "none")
        check(said(prepare(*given, *wrongly), capfd), f"{source}, column", wrong)
    assert not wrong, "\n".join(wrong)
    assert scanner.folder(tmp_path / "out", may=("/tokens.bin", "/input_files.json")) == set()
    tokens = {hit.rsplit(" ", 1)[1] for hit in scanner.folder(tmp_path / "out")}
    assert len(tokens) > 30, "the scanner reads the token ids of shards"


@pytest.mark.slow
@pytest.mark.parametrize("source", [*LAYOUTS, "pubmed", "pmc"])
def test_a_spoiled_distribution_stays_quiet(
    source, tmp_path, tiny_tokenizer, scanner, capfd
) -> None:
    """Canaries in the place of words: of few, that values have them; of many, headers and marks."""
    articles = {"pubmed": {"a.xml": CONTENTS["pubmed"]}, "pmc": {"a.xml": CONTENTS["jats"]}}
    files = articles[source] if source in articles else LAYOUTS[source][0]
    wrong: list[str] = []
    for number, share in enumerate((0.02, 0.05, 0.1, 0.3) * 5):
        draws = random.Random(number)
        folder, output = tmp_path / f"in{number}", tmp_path / f"out{number}"
        for name, content in files.items():
            text = content if isinstance(content, str) else content.decode("latin-1")
            text = re.sub(
                r"\w+",
                lambda word, d=draws, s=share: d.choice(CANARIES) if d.random() < s else word[0],
                text,
            )
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            data = text.encode()
            (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        options = ("--output", output, "--validation-fraction", "0.3", "--exact-duplicates")
        more = ("--placeholders", "surrogate") if number % 2 else ()
        command = prepare(source, folder, tiny_tokenizer, *options, *more)
        check(said(command, capfd), f"{source} {number}", wrong)
        if output.exists():
            found = scanner.folder(output, may=("/tokens.bin", "/input_files.json"))
            wrong += sorted(found)
    assert not wrong, "\n".join(wrong)


@pytest.mark.slow
@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL, "memory"])
def test_a_preparation_that_is_ended_stays_quiet(end, tmp_path, tiny_tokenizer, scanner) -> None:
    """A real process, ended while it tokenizes, or that runs out of memory."""
    rows = "".join(f'{RECORDS[i % 20]},"{i} {note(i)}"\n' for i in range(60_000))
    file = tmp_path / f"{FILES[0]}.csv"
    file.write_text(f"mrn,text\n{rows}")
    home = tmp_path / "home"
    command = [sys.executable, str(ROOT / "scripts/prepare_data.py"), "--source", "csv"]
    command += ["--input", str(file), "--text-column", "text", "--group-column", "mrn"]
    command += ["--tokenizer", str(tiny_tokenizer), "--output", str(home / "out")]
    command += ["--workers", "1", "--exact-duplicates"]
    if end == "memory":
        command = ["bash", "-c", 'ulimit -v 400000; exec "$0" "$@"', *command]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen(command, cwd=ROOT, **streams)
    if end == "memory":
        text, _ = process.communicate(timeout=120)
    else:
        text = process.stdout.readline()  # of the progress: it has begun
        assert "tokenizing" in text
        process.send_signal(end)
        text += process.communicate(timeout=60)[0]
    assert process.returncode != 0
    assert not hits(text), text
    assert scanner.folder(home, may=("/tokens.bin",)) == set() if home.exists() else True


@pytest.mark.parametrize(
    "hide",
    [
        lambda name, ids: name.upper().encode(),
        lambda name, ids: f"a,{name}b".encode("utf-16"),
        lambda name, ids: f"{name}".encode("utf-32-be"),
        lambda name, ids: f"x{name}".encode().hex().encode(),
        lambda name, ids: base64.b64encode(f"12{name} ".encode()),
        lambda name, ids: "".join(f"\\u{ord(c):04x}" for c in name).encode(),
        lambda name, ids: gzip.compress(gzip.compress(name.encode())),
        lambda name, ids: np.array([1, *ids, 2], np.uint16).tobytes(),
        lambda name, ids: b"?" + np.array(ids, np.int64).tobytes(),
        lambda name, ids: json.dumps({"x": [1, *ids]}, indent=1).encode(),
        lambda name, ids: saved(np.savez_compressed, ids=np.array([ids], np.int32)),
        lambda name, ids: saved(np.savez, a=np.array([f"{name}"])),
    ],
)
def test_the_scanner_finds_a_name_in_any_form(hide, scanner, tiny_tokenizer) -> None:
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    name = NAMES[7].split()[0]
    hidden = hide(name, tokenizer.encode_batch([f"seen by {name}, at home"])[0].tolist())
    assert scanner.data(b"0" + hidden if hidden[:1] == b"?" else hidden) == {NAMES[7]}


def saved(save: Callable[..., None], **arrays: np.ndarray) -> bytes:
    stream = io.BytesIO()
    save(stream, **arrays)
    return stream.getvalue()


def test_the_scanner_finds_all_canaries_and_nothing_else() -> None:
    kinds = (content for content in CONTENTS.values() if len(content) < 10**5)
    found = {canary for content in kinds for canary in Scanner().data(content)}
    assert {*found, *FILES} == set(CANARIES)
    assert all(hits(canary) == {canary} for canary in CANARIES)
    assert hits("0.9071132051 1907113205 19071132059 zqbor Kowalski") == set()


def test_only_words_that_columns_are_named_with_are_shown() -> None:
    shown = ["note_text", "ROW_ID", "PatientID", "chartdate", "label 2", "Impressions", "hadm_id"]
    assert [name for name in shown if not is_common(name)] == []
    hidden = ["Mueller", "note of Mueller", "MuellerID", "icd_4019", "Smith-Text", "2021", "B17"]
    assert [name for name in hidden if is_common(name)] == []
