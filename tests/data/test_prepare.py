# SPDX-License-Identifier: Apache-2.0
"""From text to shards: complete, split by group, the same bytes every time, all or nothing."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from bcmb_jax.data.ingest import FORMATS, SOURCES, Document, Skipped, read
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import SpecialTokens, Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError

ROOT = Path(__file__).parents[2]
SECRET = "zebrafish"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(2500))]


def make_tokenizer() -> Tokenizer:
    vocabulary = {word: index for index, word in enumerate(WORDS)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend, SpecialTokens(cls=2, sep=3, pad=0, mask=4, unk=1))


def make_records(count: int = 2500, groups: int | None = None) -> Iterator[Document | Skipped]:
    """Document i is the word wi, i % 5 + 1 times; every hundredth record is empty."""
    for i in range(count):
        if i % 100 == 99:
            yield Skipped("notes.csv", i + 2, "empty")
        group = None if groups is None else f"patient {i % groups}"
        yield Document(f"w{i} " * (i % 5 + 1), group, "notes.csv", i + 2)


def run(output: Path, records: Any = None, **more: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {"source": "notes", "validation_fraction": 0.1, "seed": 3, **more}
    return prepare(records or make_records(), make_tokenizer(), output, **arguments)


def words(split: Path) -> list[int]:
    """The number of each document's word, after checking that the document is whole."""
    shards = open_shards(split)
    shards.verify()
    found = []
    for row, length in enumerate(shards.lengths.tolist()):
        [word] = set((shards.read(row, 0, length) - 5).tolist())
        assert length == word % 5 + 1
        found.append(word)
    return found


def contents(folder: Path) -> dict[str, bytes]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_every_document_is_in_one_split_once(tmp_path: Path) -> None:
    report = run(tmp_path / "out")
    train, validation = words(tmp_path / "out/train"), words(tmp_path / "out/validation")
    assert sorted(train + validation) == list(range(2500))
    assert 200 < len(validation) < 300
    assert train != sorted(train)
    tokens = sum(i % 5 + 1 for i in range(2500))
    assert (report["documents"], report["tokens"]) == (2500, tokens)
    assert report["tokens_with_special"] == tokens + 5000
    assert report["splits"]["validation"]["documents"] == len(validation)
    assert load_tokenizer(str(tmp_path / "out/tokenizer")).fingerprint == (
        open_shards(tmp_path / "out/train").tokenizer_fingerprint
    )


def test_groups_stay_together_and_follow_the_seed(tmp_path: Path) -> None:
    run(tmp_path / "a", make_records(groups=50))
    run(tmp_path / "b", make_records(groups=50), seed=4)
    groups = {
        (name, split): {word % 50 for word in words(tmp_path / name / split)}
        for name in "ab"
        for split in ("train", "validation")
    }
    for name in "ab":
        assert not groups[name, "train"] & groups[name, "validation"]
        assert len(groups[name, "train"] | groups[name, "validation"]) == 50
    assert groups["a", "validation"] != groups["b", "validation"]


def test_a_group_keeps_its_split_when_the_rest_changes(tmp_path: Path) -> None:
    run(tmp_path / "all", make_records(groups=50))
    run(tmp_path / "some", list(make_records(groups=50))[::3])
    some = set(words(tmp_path / "some/validation"))
    assert some
    assert some <= set(words(tmp_path / "all/validation"))


def test_the_same_input_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        run(tmp_path / name / "out", inputs=["notes.csv"])
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    assert set(contents(tmp_path / "a/out")) == {
        "report.json",
        "input_files.json",
        "tokenizer/special_tokens_map.json",
        "tokenizer/tokenizer.json",
        *(
            f"{s}/{f}"
            for s in ("train", "validation")
            for f in os.listdir(tmp_path / "a/out/train")
        ),
    }


def test_what_is_left_out_is_counted_by_file_and_line(tmp_path: Path) -> None:
    records = [*make_records(), Skipped("b.csv", 7, "broken: x"), Document("\t", None, "c", 9)]
    report = run(tmp_path / "out", records)
    assert json.loads((tmp_path / "out/report.json").read_text()) == report
    expected = {"broken: x": 1, "empty": 25, "empty: no tokens": 1}
    assert report["skipped"] == expected
    assert open_shards(tmp_path / "out/train").index["skipped"] == expected
    assert report["skipped_lines"] == {
        "broken: x": {"2": [7]},
        "empty": {"1": list(range(101, 2502, 100))},
        "empty: no tokens": {"3": [9]},
    }
    names = {"inputs": [], "left_out": {"1": "notes.csv", "2": "b.csv", "3": "c"}}
    assert json.loads((tmp_path / "out/input_files.json").read_text()) == names
    assert report["documents_without_group"] == 2500


def test_no_validation_means_train_only(tmp_path: Path) -> None:
    run(tmp_path / "out", validation_fraction=0)
    assert sorted(words(tmp_path / "out/train")) == list(range(2500))
    assert not (tmp_path / "out/validation").exists()


def test_an_output_with_a_file_of_another_is_not_replaced(tmp_path: Path) -> None:
    run(tmp_path / "out")
    (tmp_path / "out" / "mine.txt").write_text("precious")
    with pytest.raises(InputError, match=r"holds more than bcmb prepare writes \(mine.txt\)"):
        run(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine.txt").is_file()


def test_a_source_too_small_for_its_fraction_still_has_a_validation_split(tmp_path: Path) -> None:
    report = run(tmp_path / "out", list(make_records(3)), validation_fraction=0.01)
    assert report["splits"]["validation"]["documents"] == 1
    train, validation = words(tmp_path / "out/train"), words(tmp_path / "out/validation")
    assert sorted(train + validation) == [0, 1, 2]


@pytest.mark.parametrize(
    ("count", "more", "message"),
    [
        (3, {"validation_fraction": 0.999}, "train would be empty: all of 3 documents"),
        (0, {}, r"holds no document \(left out: nothing\)"),
        (3, {"seed": -1}, "seed -1: at least 0"),
        (3, {"validation_fraction": 1.0}, r"fraction 1\.0 is not in \[0, 1\)"),
    ],
)
def test_nothing_to_train_on_is_refused_and_leaves_nothing(
    tmp_path: Path, count: int, more: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run(tmp_path / "out", list(make_records(count)) or iter(()), **more)
    assert not list(tmp_path.iterdir())


def test_a_finished_output_is_replaced_only_if_asked_and_only_at_the_end(tmp_path: Path) -> None:
    output = tmp_path / "out"
    run(output)
    before = contents(output)
    with pytest.raises(InputError, match=r"exists already: .* add --overwrite"):
        run(output)

    def interrupted() -> Iterator[Document | Skipped]:
        yield from make_records()
        assert contents(output) == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(output, interrupted(), overwrite=True)
    assert contents(output) == before
    run(output, seed=4, overwrite=True)
    assert contents(output) != before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_overwrite_spares_folders_that_are_not_ours(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home/thesis.txt").write_text("x")
    with pytest.raises(InputError, match=r"was not written by bcmb prepare"):
        run(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home/thesis.txt").exists()


def script(cwd: Path, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "scripts/prepare_data.py"), *map(str, arguments)]
    # Until the package is installed, the checkout stands in for it.
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_script_works_from_anywhere_and_keeps_texts_to_itself(tmp_path: Path) -> None:
    make_tokenizer().save(tmp_path / "tokenizer")
    lines = [json.dumps({"text": f"{SECRET} w{i}", "mrn": i // 4, "file": "x"}) for i in range(400)]
    lines[5] = f'{{"text": "{SECRET}'
    (tmp_path / "notes.jsonl.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    arguments = ["--source", "jsonl", "--input", "notes.jsonl.gz", "--tokenizer", "tokenizer"]
    arguments += ["--output", "D/ours", "--validation-fraction", "0.2", "--workers", "1"]
    done = script(tmp_path, *arguments, "--group-column", "mrn", "--license", "DUA 12")
    assert done.returncode == 0, done.stderr
    assert "D/ours: 399 documents, 798 tokens" in done.stdout
    assert "left out, broken: not a JSON object: 1" in done.stdout
    assert str(tmp_path / "D/ours/report.json") in done.stdout
    shards = open_shards(tmp_path / "D/ours/validation")
    assert (shards.name, shards.index["license"]) == ("ours", "DUA 12")
    assert shards.index["options"]["group_column"] == "mrn"

    refused = script(tmp_path, *arguments)
    wrong = script(tmp_path, *arguments, "--text-column", "body", "--overwrite")
    for failed, message in [
        (refused, "exists already"),
        (wrong, "notes.jsonl.gz has the columns text, mrn, file, not 'body'"),
    ]:
        assert failed.returncode == 2
        assert failed.stderr.startswith("error: ")
        assert failed.stderr.count("\n") == 1
        assert message in failed.stderr
    written = b"".join(contents(tmp_path / "D").values()).decode("latin-1")
    said = "".join(run.stdout + run.stderr for run in (done, refused, wrong))
    assert SECRET not in written + said


def test_the_script_lists_its_sources(tmp_path: Path) -> None:
    done = script(tmp_path, "--list-sources")
    assert done.returncode == 0
    formats, *sources = done.stdout.split("\n\n")
    assert [line.split()[0] for line in formats.splitlines()] == list(FORMATS)
    assert [text.split(":")[0] for text in sources] == list(SOURCES)
    assert script(tmp_path, "--source", "csv").returncode == 2


# source, files, format, text column, tokens by shared/data/README.md; what it joins with a space
# or counts apart costs a token or more per blank line, so those are given as counted here.
REAL = [
    ("mtsamples", "clinical/mtsamples/mtsamples_subset.csv.gz", "csv", None, 911, 682_040),
    ("aci_bench", "clinical/aci_bench", "csv", "note", 207, 132_032),
]
REAL_SLOW = [
    # README: 1,774,289, 4,225,261 and 7,113,109.
    ("ei", "pubmed/ei_abstracts.jsonl.gz", "jsonl", "title,abstract", 4221, 1_774_289 + 4221),
    ("cohen", "pubmed/sysreview_abstracts.jsonl.gz", "jsonl", "title,abstract", 12331, 4_237_592),
    ("pmc", "pmc/pmc_fulltext_ccby.jsonl.gz", "jsonl", "title,abstract,body", 1300, 7_115_675),
]


@pytest.mark.parametrize(
    ("name", "files", "format", "column", "documents", "tokens"),
    [*REAL, *(pytest.param(*row, marks=pytest.mark.slow) for row in REAL_SLOW)],
)
def test_real_text_gives_the_known_token_counts(
    shared: Path,
    tmp_path: Path,
    name: str,
    files: str,
    format: str,
    column: str | None,
    documents: int,
    tokens: int,
) -> None:
    tokenizer = load_tokenizer(str(shared / "data/tokenizers/modernbert"))
    records = read([shared / "data/pretrain" / files], format, column, all_parts=True)
    report = prepare(records, tokenizer, tmp_path / name, source=name, validation_fraction=0.05)
    assert report["skipped"] == {}
    assert (report["documents"], report["tokens"]) == (documents, tokens)
    for split, counts in report["splits"].items():
        shards = open_shards(tmp_path / name / split)
        shards.verify()
        assert int(shards.lengths.sum()) == counts["tokens"]
