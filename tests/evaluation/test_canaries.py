# SPDX-License-Identifier: Apache-2.0
"""No value of an example is said or written: a hundred canaries through every task of evaluate."""

import json
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from bcmb_jax import commands, private
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import LONGEST_MESSAGE, run
from bcmb_jax.evaluation.tasks import TASKS
from tests.fixtures.canaries import (
    COLUMNS,
    FILES,
    LABELS,
    NAMES,
    RECORDS,
    Scanner,
    contents,
    hits,
    note,
)

CONTENTS = {kind: data for kind, data in contents().items() if kind != "csv, wide"}
TABLES = ("train.tsv", "dev.tsv", "test.tsv")
EXPECTED: dict[str, tuple[str, ...]] = {
    "phenotype": ("ACTdb102003.csv", "NOTEEVENTS.csv"),
    "cos": (f"{FILES[0]}.ann", f"{FILES[1]}.ann"),
    "social_history": (f"{FILES[0]}.ann", f"{FILES[0]}.txt"),
    "deid": ("id.text", "id.res"),
    "pubmedqa": ("ori_pqal.json", "test_ground_truth.json"),
    "chemprot_scibert": ("train.txt", "dev.txt", "test.txt"),
    "csv": ("train.csv", "dev.csv", "test.csv"),
    **{
        f"i2b2_2006_{task}": (f"{stem}_train.xml", f"{stem}_test.xml")
        for task, stem in (("deid", "deid_surrogate"), ("smoking", "smokers_surrogate"))
    },
    "i2b2_2010": ("training/n1.txt", "training/n1.con", "test/n2.txt", "test/n2.con"),
    "i2b2_2012": ("training/1.xml", "testing/2.xml"),
    "i2b2_2014_deid": ("training/1.xml", "testing/2.xml"),
    "ddi_drugs": ("Train/1.xml", "Test/2.xml"),
    "mednli": tuple(f"mli_{split}_v1.jsonl" for split in ("train", "dev", "test")),
    "physionet_phi": ("id.text", "id-phi.phrase"),
}
COLUMNS_ASKED: tuple[tuple[str, ...], ...] = (
    (),
    ("--text-column", "text", "--label-column", "patient"),
    ("--text-column", "text", "--label-column", "text"),
    ("--text-column", "x", "--label-column", NAMES[0]),
    ("--text-column", "text", "--label-column", "label", "--group-column", "id"),
)


def _records(header: str, texts: list[str]) -> str:
    return "".join(f"START_OF_RECORD={header}\n{x}\n||||END_OF_RECORD\n" for x in texts)


def _jsonl(label: str) -> str:
    return "".join(json.dumps({"text": note(i), "label": label}) + "\n" for i in range(9))


def _pubmedqa(**changed: object) -> dict[str, str]:
    record = {"QUESTION": note(1), "CONTEXTS": [note(2)], "final_decision": "yes"}
    records = {RECORDS[i]: record | changed for i in range(9)}
    truth = {RECORDS[i]: "yes" for i in range(4)}
    return {"ori_pqal.json": json.dumps(records), "test_ground_truth.json": json.dumps(truth)}


def _table(header: str, row: Callable[[int], str], rows: int = 60) -> str:
    return header + "\n" + "".join(f"{row(i)}\n" for i in range(rows))


def _note_xml(start: int, end: int, kind: str, element: str, attribute: str) -> str:
    inside = f'start="{start}" end="{end}" text="{NAMES[0]}" {attribute}="{kind}"'
    text = f"<TEXT><![CDATA[{note(0)}]]></TEXT>"
    return f'<root>\n{text}\n<TAGS>\n<{element} id="0" {inside}/>\n</TAGS>\n</root>\n'


def _sentence_xml(offset: str, kind: str) -> str:
    entity = f'<entity id="0" charOffset="{offset}" type="{kind}" text="{NAMES[0]}"/>'
    return f'<document id="0">\n<sentence text="{note(0)}">\n{entity}\n</sentence></document>\n'


FLAGS = ",".join(f"{i}_0" for i in range(10))
ACT = ",".join(["HADM_ID", "ROW_ID", *TASKS["phenotype"].classes, "NONE"])
CELLS = ",".join("0" * len(TASKS["phenotype"].classes))
NOTE_EVENTS = _table("ROW_ID,TEXT", lambda i: f'{i},"{note(i)}"')
# Files that are nearly right: their headers are, and their rows are not.
NEARLY: dict[str, list[dict[str, str]]] = {
    "chemprot": [
        {x: _table("index\tsentence\tlabel", lambda i: f"{i}\t{note(i)}\t{LABELS[i % 9]}")}
        for x in TABLES
    ],
    "hoc_document": [
        {"train.tsv": _table("pmid\ttext\tlabels", lambda i: f"{i}\t{note(i)}\t{NAMES[i % 9]}")}
    ],
    "hoc_sentence": [
        {"train.tsv": _table("labels\tsentence\tindex", lambda i, x=x: f"{x}\t{note(i)}\t{i}")}
        for x in (LABELS[0], NAMES[1], f"{FLAGS}\t{NAMES[1]}")
    ],
    "phenotype": [
        {"ACTdb102003.csv": _table(ACT, row), "NOTEEVENTS.csv": NOTE_EVENTS}
        for row in (
            lambda i: f"{RECORDS[0]},{i},{CELLS},{NAMES[i % 9]}",
            lambda i: f"{RECORDS[0]},{NAMES[i % 9]},{CELLS},1",
            lambda i: f"{RECORDS[0]},{RECORDS[i % 9]},{CELLS},1",
        )
    ]
    + [
        {
            "ACTdb102003.csv": _table(ACT, lambda i: f"1,{i},{CELLS},1"),
            "NOTEEVENTS.csv": _table("ROW_ID,TEXT", lambda i, x=x: f'{x},"{note(i)}"'),
        }
        for x in (RECORDS[0], NAMES[0])
    ],
    "deid": [
        {
            "id.text": _records(f"{RECORDS[0]}||||1||||", [note(0)] * 9),
            "id.res": _records(f"{x}||||1||||", [note(0)] * n),
        }
        for x, n in ((RECORDS[1], 9), (RECORDS[0], 8), (NAMES[0], 9), (RECORDS[0], 3))
    ],
    "pubmedqa": [
        _pubmedqa(final_decision=LABELS[0]),
        _pubmedqa(final_decision=[NAMES[0]]),
        _pubmedqa(CONTEXTS=None),
        _pubmedqa(QUESTION=""),
        _pubmedqa() | {"test_ground_truth.json": json.dumps({NAMES[0]: "yes"})},
        _pubmedqa() | {"test_ground_truth.json": json.dumps({RECORDS[0]: NAMES[1]})},
    ],
    "chemprot_scibert": [{"train.txt": _jsonl(NAMES[0])}, {"train.txt": _jsonl("") + NAMES[0]}],
    "social_history": [
        {f"{FILES[i]}.txt": note(i) for i in range(4)}
        | {f"{FILES[i]}.ann": f"T1\t{kind} 0 {end}\t{NAMES[i]}\n" for i in range(4)}
        for kind, end in ((LABELS[0], 4), ("Type", 900), ("LivingSituation", len(NAMES[0])))
    ],
    "cos": [{f"{FILES[0]}.ann": f"T1\tSnippet 0 9\t\nT2\t{LABELS[0]} 0 4\t{NAMES[0]}\n"}],
    **{
        task: [
            {x: f"{NAMES[0].split()[0]}\t{tag}\n" for x in TABLES}
            for tag in (NAMES[1], f"B-{LABELS[0]}", f"S-{NAMES[1]}", f"B-{note(1) * 2}")
        ]
        for task in ("bc5cdr", "ncbi_disease", "conll", "anatem", "jnlpba", "bc2gm")
    },
    "i2b2_2006_deid": [
        {"deid_surrogate_train.xml": f"<ROOT>\n<RECORD>\n<TEXT>{text}</TEXT>\n</RECORD>\n</ROOT>\n"}
        for text in (f'<PHI TYPE="{NAMES[0]}">{note(0)}</PHI>', f"<PHI>{note(0)}", f"&{FILES[0]};")
    ],
    "i2b2_2006_smoking": [
        {
            "smokers_surrogate_train.xml": f"<ROOT>\n<RECORD>\n{status}\n"
            f"<TEXT>{note(0)}</TEXT>\n</RECORD>\n</ROOT>\n"
        }
        for status in (f'<SMOKING STATUS="{NAMES[0]}"></SMOKING>', "", "<SMOKING>")
    ],
    "i2b2_2010": [
        {"training/n1.txt": note(0), "training/n1.con": f'c="{NAMES[0]}" {at}||t="{kind}"\n'}
        for at, kind in (("1:0 1:0", NAMES[0]), ("1:0 1:999", "problem"), (NAMES[1], "problem"))
    ],
    **{
        task: [
            {"training/1.xml": _note_xml(start, end, kind, element, attribute)}
            for start, end, kind in ((0, 99_999, good_kind), (9, 3, good_kind), (0, 4, NAMES[0]))
        ]
        for task, element, attribute, good_kind in (
            ("i2b2_2012", "EVENT", "type", "PROBLEM"),
            ("i2b2_2014_deid", "NAME", "TYPE", "DOCTOR"),
        )
    },
    "ddi_drugs": [
        {"Train/1.xml": _sentence_xml(offset, kind)}
        for offset, kind in (
            ("0-99999", "drug"),
            ("9-3", "drug"),
            (NAMES[0], "drug"),
            ("0-3", NAMES[0]),
        )
    ],
    "mednli": [
        {"mli_train_v1.jsonl": json.dumps(record) + "\n"}
        for record in (
            {"sentence1": note(0), "sentence2": note(1), "gold_label": NAMES[0]},
            {"sentence1": [note(0)], "sentence2": note(1), "gold_label": "neutral"},
            {"sentence1": note(0), "gold_label": "neutral"},
        )
    ],
    "physionet_phi": [
        {
            "id.text": _records("1||||1||||", [note(0)] * 9),
            "id-phi.phrase": f"{row} {NAMES[0]}\n",
        }
        for row in (
            f"{RECORDS[0]} 1 0 4 HCPName",
            "1 1 0 99999 HCPName",
            f"1 1 0 4 {LABELS[0]}",
            "1",
        )
    ],
    "csv": [
        {"train.csv": _table("id,text,label,patient", row)}
        for row in (
            lambda i: f'{RECORDS[i % 20]},"{note(i)}",{NAMES[i % 19]},{NAMES[i % 30]}',
            lambda i: f'{RECORDS[i % 20]},"{note(i)}",{RECORDS[i % 2]},{NAMES[i % 30]}',
        )
    ],
}


@pytest.fixture(autouse=True)
def caller_keeps_its_umask(monkeypatch) -> None:
    monkeypatch.setattr(private, "withhold", lambda *_: None)
    monkeypatch.setattr(threading, "excepthook", lambda failed: None)


@pytest.fixture(scope="module")
def scanner(tiny_tokenizer) -> Scanner:
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    return Scanner(lambda text: tokenizer.encode_batch([text])[0].tolist())


def said(capfd, *arguments: object) -> str:
    """Return what a command prints, in whatever way it ends."""
    capfd.readouterr()
    run(lambda: commands.main(*map(str, arguments)))
    return "".join(capfd.readouterr())


def check(task: str, folder: Path, files: dict[str, bytes], more: tuple, capfd) -> list[str]:
    """Evaluate a task on files, and return what is wrong about its message: it must refuse them."""
    shutil.rmtree(folder)
    folder.mkdir()
    for name, data in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)
    data = folder if len(files) > 1 else folder / next(iter(files))
    arguments = ("--task", task, "--backend", "text", "--seeds", "1", "--data", data)
    text = said(capfd, "evaluate", *arguments, "--output", folder.parent / "out", *more)
    found = hits(text, but=(*FILES, *more))  # whoever runs a command may see what it was given
    longest = max(map(len, text.splitlines()), default=0)
    fine = not found and longest <= LONGEST_MESSAGE + len("error: ") and "unexpected" not in text
    return [] if fine and text.startswith("error: ") else [f"{task} {list(files)} {more}: {text}"]


def check_task(task: str, kinds: list[str], folder: Path, capfd) -> None:
    folder.mkdir()
    names = EXPECTED.get(task, TABLES)
    cases: list[dict[str, bytes]] = [dict.fromkeys(names, CONTENTS[kind]) for kind in kinds]
    for files in NEARLY[task]:
        given = {name: text.encode() for name, text in files.items()}
        missing = dict.fromkeys(names, next(iter(given.values()))) | given
        cases += [given, missing] if missing != given else [given]
    wrong = []
    for case in cases:
        for more in COLUMNS_ASKED if task == "csv" else ((),):
            wrong += check(task, folder, case, more, capfd)
    assert not wrong, "\n".join(wrong)


QUICK = ["csv with usual names", "csv without header", "tsv", "tags", "json list", "utf-16"]


@pytest.mark.parametrize("task", TASKS)
def test_no_task_says_a_value(task: str, tmp_path: Path, capfd) -> None:
    check_task(task, QUICK, tmp_path / "in", capfd)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_no_task_says_a_value_of_any_file(task: str, tmp_path: Path, capfd) -> None:
    check_task(task, list(CONTENTS), tmp_path / "in", capfd)


def good(folder: Path, task: str) -> Path:
    """Write examples about persons with labels that are none, and return what --data names."""
    folder.mkdir()
    if task in ("single", "multi"):
        labels = ("cough", "rash") if task == "single" else ("cough;rash", "rash", "")
        row = '{},"{}",{},{}'.format
        rows = _table(
            f"mrn,text,label,{COLUMNS[0]}",
            lambda i: row(RECORDS[i % 20], note(i), labels[i % len(labels)], NAMES[i % 30]),
        )
        (folder / f"{FILES[0]}.csv").write_text(rows)
        return folder / f"{FILES[0]}.csv"
    if task == "conll":
        words = [(note(i).split(), ("B-name", "I-name")) for i in range(40)]
        text = "".join(
            "".join(f"{word}\t{(*tags, 'O')[min(n, 2)]}\n" for n, word in enumerate(found)) + "\n"
            for found, tags in words
        )
        for name in TABLES:
            (folder / name).write_text(text)
    if task == "deid":
        masked = [note(i).replace(NAMES[i % 30], "[**Known lastname 3**]") for i in range(20)]
        (folder / "id.text").write_text(_records("1||||1||||", [note(i) for i in range(20)]))
        (folder / "id.res").write_text(_records("1||||1||||", masked))
    if task == "social_history":
        for i, name in enumerate(sorted(NAMES)):
            (folder / f"{name}.txt").write_text(f"{name} smokes.")
            said_there = "elsewhere" if i % 7 == 0 else name
            (folder / f"{name}.ann").write_text(f"T1\tType 0 {len(name)}\t{said_there}\n")
    return folder


GOOD = ("single", "multi", "conll", "deid", "social_history")


@pytest.mark.parametrize(
    "task", [pytest.param(x, marks=pytest.mark.slow) if x in GOOD[1:4] else x for x in GOOD]
)
def test_results_hold_no_value(task: str, tmp_path: Path, scanner: Scanner, capfd) -> None:
    options = ["--task", "csv" if task in GOOD[:2] else task, "--data", good(tmp_path / "in", task)]
    options += ["--group-column", "mrn"] if task in GOOD[:2] else []
    out = tmp_path / "out"
    text = said(capfd, "evaluate", *options, "--backend", "text", "--seeds", "1", "--output", out)
    assert f"written: {out}/results.json" in text
    assert not hits(text)
    assert not scanner.folder(out)
    (example, *_) = json.loads((out / "results.json").read_text())["dataset"]["notes"] or [""]
    assert task != "social_history" or "by name they are number 1, 8, 15, 22, 29" in example


@pytest.mark.slow
def test_kept_models_and_reports_hold_no_value(
    tmp_path: Path, folder: Path, scanner: Scanner, capfd
) -> None:
    """A model is fine-tuned, kept, exported and reported; in short form in test_evaluate.py."""
    data, out = good(tmp_path / "in", "single"), tmp_path / "out"
    options = ("--task", "csv", "--data", data, "--seeds", "1", "--learning-rate", "1e-3")
    model = ("--model", folder, "--epochs", "1", "--keep-models", "--output", out / "results")
    text = said(capfd, "evaluate", *options, *model)
    kept = out / "results" / "models" / "0.001-1"
    assert json.loads((kept / "config.json").read_text())["id2label"] == {"0": "cough", "1": "rash"}
    text += said(capfd, "convert", "--input", kept, "--to", "orbax", "--output", out / "copy")
    text += said(capfd, "report", out / "results", "--output", out / "tables")
    written = {path.name for path in out.rglob("*")}
    assert written > {"results.json", "0.001-1.json", "model.safetensors", "README.md", "tables.md"}
    assert not hits(text)
    assert not scanner.folder(out)
