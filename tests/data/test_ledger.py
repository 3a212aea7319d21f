# SPDX-License-Identifier: Apache-2.0
"""The corpus counted beside the paper's, and many sources prepared by one command."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bcmb_jax.data.ingest import SOURCES, read
from bcmb_jax.data.ledger import (
    BIOMEDICAL_TOKENS,
    card,
    length_table,
    make_figure,
    read_ledger,
    table,
)
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError

ROOT = Path(__file__).resolve().parents[2]
PUBMED = """<?xml version="1.0"?>
<PubmedArticleSet>{}</PubmedArticleSet>
"""
ARTICLE = """<PubmedArticle><MedlineCitation><PMID Version="1">{}</PMID><Article>
<ArticleTitle>A title</ArticleTitle>
<Abstract><AbstractText>An abstract, {}.</AbstractText></Abstract>
<Language>eng</Language></Article></MedlineCitation></PubmedArticle>
"""


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two of the paper's sources as distributed, and notes of one's own."""
    folder = tmp_path / "raw"
    (folder / "pubmed").mkdir(parents=True)
    articles = "".join(ARTICLE.format(i, i) for i in range(30))
    (folder / "pubmed" / "pubmed26n0001.xml").write_text(PUBMED.format(articles))
    (folder / "interviews").mkdir()
    for i in range(20):
        (folder / "interviews" / f"RES{i:04}.txt").write_text(f"D: How are you? P: Well, {i}.")
    (folder / "interviews" / "RES0020.txt").write_text(" ")
    (folder / "notes.csv").write_text("note\n" + "".join(f"a note {i}\n" for i in range(25)))
    return folder


def script(name: str, *arguments) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "scripts" / name), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def prepare_all(raw: Path, tokenizer: Path, output: Path, *more) -> subprocess.CompletedProcess:
    pairs = [f"pubmed={raw / 'pubmed'}", f"respiratory-interviews={raw / 'interviews'}"]
    return script(
        *("prepare_data.py", "--source", "all", "--input", *pairs, "--tokenizer", tokenizer),
        *("--output", output, "--validation-fraction", "0.2", *more),
    )


def cells(text: str) -> dict[str, list[str]]:
    rows = [line.strip("| ").split(" | ") for line in text.splitlines()[2:]]
    return {row[0]: [cell.strip() for cell in row[1:]] for row in rows}


def test_one_command_prepares_all_and_then_only_what_is_missing(raw, tiny_tokenizer, tmp_path):
    output = tmp_path / "shards"
    done = prepare_all(raw, tiny_tokenizer, output)
    assert done.returncode == 0, done.stderr
    before = (output / "pubmed/train/tokens.bin").read_bytes()
    index = json.loads((output / "pubmed/train/index.json").read_text())
    assert index["license"] == SOURCES["pubmed"].licence  # it travels with the shards
    (output / "respiratory-interviews/report.json").rename(tmp_path / "report.json")
    for folder in ("train", "validation", "tokenizer", "input_files.json"):
        (output / "respiratory-interviews" / folder).rename(tmp_path / folder)
    (output / "respiratory-interviews").rmdir()
    again = prepare_all(raw, tiny_tokenizer, output)
    assert again.returncode == 0
    assert "pubmed: kept as it is" in again.stdout
    assert (output / "pubmed/train/tokens.bin").read_bytes() == before
    tokens = "train/tokens.bin"
    assert (output / "respiratory-interviews" / tokens).read_bytes() == (
        tmp_path / tokens
    ).read_bytes()


def test_what_was_prepared_otherwise_is_not_kept_as_if_it_were_the_same(
    raw, tiny_tokenizer, tmp_path
):
    output = tmp_path / "shards"
    assert prepare_all(raw, tiny_tokenizer, output).returncode == 0
    again = prepare_all(raw, tiny_tokenizer, output, "--seed", "7")
    assert again.returncode == 2
    assert "pubmed was prepared otherwise (seed was 0, now 7)" in again.stderr
    (file,) = (raw / "pubmed").iterdir()
    before = file.stat()
    file.write_text(file.read_text().replace("An abstract, 7.", "An abstract, 8."))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert file.stat().st_size == before.st_size
    again = prepare_all(raw, tiny_tokenizer, output)
    assert again.returncode == 2
    told = "pubmed was prepared otherwise (the content of its input's files was another): ask for"
    assert told in again.stderr
    (tmp_path / "empty" / "pubmed").mkdir(parents=True)
    again = prepare_all(raw, tiny_tokenizer, tmp_path / "empty")
    assert again.returncode == 2
    assert "pubmed is no finished output" in again.stderr


def test_duplicates_are_found_across_the_sources_of_one_command(raw, tiny_tokenizer, tmp_path):
    (raw / "mtsamples").mkdir()
    (raw / "mtsamples" / "mtsamples.csv").write_text(
        ",description,medical_specialty,sample_name,transcription,keywords\n"
        '0,a,b,c,"D: How are you?  P: Well, 7.",d\n1,a,b,c,Something else.,d\n'
        "2,a,b,c,A third text.,d\n"
    )
    pairs = [f"respiratory-interviews={raw / 'interviews'}", f"mtsamples={raw / 'mtsamples'}"]
    command = [
        *("prepare_data.py", "--source", "all", "--input", *pairs, "--tokenizer", tiny_tokenizer),
        *("--output", tmp_path / "shards", "--exact-duplicates"),
    ]
    done = script(*command)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "shards/mtsamples/report.json").read_text())
    assert report["skipped"] == {"repeats an earlier text": 1}
    assert report["documents"] == 2
    assert report["options"]["not_in"] == ["respiratory-interviews"]
    del report["options"]["input_sha256"], report["options"]["max_record_bytes"]  # as in 0.1
    (tmp_path / "shards/mtsamples/report.json").write_text(json.dumps(report))
    # Where all is kept, what they are compared by is not even read.
    (tmp_path / "shards/respiratory-interviews/fingerprints.npz").write_bytes(b"?")
    done = script(*command)
    assert done.returncode == 0
    assert done.stdout.count("kept as it is") == 2


def test_a_source_that_fails_is_named_and_what_was_done_is_kept(raw, tiny_tokenizer, tmp_path):
    output = tmp_path / "shards"
    for file in (raw / "interviews").iterdir():
        file.write_text(" ")
    done = prepare_all(raw, tiny_tokenizer, output)
    assert done.returncode == 2
    last = done.stderr.splitlines()[-1]  # below what was shown of the progress
    assert last.startswith("error: respiratory-interviews: the input holds no document")
    assert "run again, goes on with the rest" in done.stderr
    assert [path.name for path in output.iterdir()] == ["pubmed"]


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["raw"], "takes NAME=PATH, not 'raw'"),
        (["pubmd=raw"], "takes NAME=PATH, not 'pubmd=raw'; names are aci-bench"),
        (["pubmed=nowhere"], "nowhere does not exist"),
    ],
)
def test_a_bad_pair_is_refused_before_anything_is_prepared(pairs, message, tmp_path):
    arguments = ["--source", "all", "--input", *pairs, "--tokenizer", "t"]
    done = script("prepare_data.py", *arguments, "--output", tmp_path / "out")
    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "out").exists()


def test_the_table_adds_up_and_stands_beside_the_papers(raw, tiny_tokenizer, tmp_path):
    output = tmp_path / "shards"
    prepare_all(raw, tiny_tokenizer, output)
    prepare(
        read([raw / "notes.csv"], "csv"),
        load_tokenizer(str(tiny_tokenizer)),
        output / "mine",
        source="mine",
        validation_fraction=0.2,
        options={"source": "csv"},
    )
    folders = [output / name for name in ("pubmed", "respiratory-interviews", "mine")]
    entries = read_ledger(folders)
    reports = [json.loads((folder / "report.json").read_text()) for folder in folders]
    assert [(x.documents, x.tokens) for x in entries] == [
        (report["documents"], report["tokens"]) for report in reports
    ]
    rows = cells(table(entries))
    paper = SOURCES["respiratory-interviews"].paper
    interviews = rows["Simulated Resp. Interviews"]
    assert interviews[:2] == [paper.country, paper.clinical_source]
    assert interviews[2:4] == ["20", "272"]
    assert interviews[5] == "0.6 M"
    tokens = f"{entries[1].tokens / 0.6e6 - 1:+.1%} tokens"
    assert interviews[6:] == [f"-252 samples, {tokens}", "1"]  # the empty one was left out
    assert rows["mine"][3] == ""
    assert rows["mine"][2] == "25"
    share = entries[0].tokens / BIOMEDICAL_TOKENS
    assert rows["**biomedical, 1**"][6] == f"{share:.3%} of the tokens"
    twice = cells(table([entries[1], entries[1]]))["**clinical, 2**"]
    assert twice[2] == "40"
    assert twice[3] == "272"
    assert twice[5] == "0.6 M"
    text = card(entries, "A corpus")
    assert SOURCES["pubmed"].licence in text
    assert "mine: TO BE STATED" in text
    left, _ = make_figure(entries).axes
    sources = [SOURCES["respiratory-interviews"].title, "PubMed"]  # by kind, most tokens on top
    assert [tick.get_text() for tick in left.get_yticklabels()] == ["mine", *sources]
    assert [len(line.get_xdata()) for line in left.lines] == [2]  # to the paper's, of one source
    figure = left.get_figure()
    assert figure.get_suptitle().startswith(f"{sum(x.tokens for x in entries):,} tokens in 74 ")


def test_the_card_tells_how_long_documents_are(tiny_tokenizer, tmp_path):
    # A letter is a token of the tiny tokenizer.
    lengths = [*range(1, 10), 8192, 20_000]
    rows = "".join("q" * length + "\n" for length in lengths)
    (tmp_path / "long.csv").write_text("note\n" + rows)
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    records = read([tmp_path / "long.csv"], "csv")
    prepare(records, tokenizer, tmp_path / "long", source="long", validation_fraction=0)
    entries = read_ledger([tmp_path / "long"])
    assert sorted(entries[0].lengths) == lengths
    share = 20_000 / sum(lengths)
    expected = f"| long | 6 | 8,192 | 20,000 | {1 / 11:.1%} | {share:.1%} |"
    assert length_table(entries).splitlines()[2:] == [expected]
    assert expected in card(entries, "A corpus")


def test_the_script_writes_table_card_and_plot(raw, tiny_tokenizer, tmp_path):
    output = tmp_path / "shards"
    prepare_all(raw, tiny_tokenizer, output)
    folders = sorted(output.iterdir())
    done = script("ledger.py", *folders, "--output", tmp_path / "corpus")
    assert done.returncode == 0, done.stderr
    written = {path.name for path in (tmp_path / "corpus").iterdir()}
    assert written == {"corpus.md", "corpus.png", "card.md"}
    assert (tmp_path / "corpus/corpus.md").read_text() == done.stdout
    failed = script("ledger.py", *folders, "--output", raw / "notes.csv")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: ")
    assert len(failed.stderr.splitlines()) == 1
    assert "notes.csv" in failed.stderr


def test_what_is_no_source_or_of_another_tokenizer_is_refused(raw, tiny_tokenizer, tmp_path):
    with pytest.raises(InputError, match="holds no train or validation"):
        read_ledger([raw])
    train_tokenizer(["another text"], 280, tmp_path / "other")
    for name, tokenizer in (("one", tiny_tokenizer), ("two", tmp_path / "other")):
        records = read([raw / "notes.csv"], "csv")
        loaded = load_tokenizer(str(tokenizer))
        prepare(records, loaded, tmp_path / name, source=name, validation_fraction=0)
    with pytest.raises(InputError, match=r"two was made with another tokenizer than .*one"):
        read_ledger([tmp_path / "one", tmp_path / "two"])
