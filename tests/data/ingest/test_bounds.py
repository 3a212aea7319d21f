# SPDX-License-Identifier: Apache-2.0
"""Bounds: no reader takes a record that is too long, and no file unpacks without end."""

import gzip
import io
import json
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from bcmb_jax.data.ingest import Bounds, Document, read
from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.formats import read_json
from bcmb_jax.data.ingest.mds import read_mds
from bcmb_jax.data.ingest.record import TOO_LONG, Skipped
from bcmb_jax.data.ingest.sources import read_ade
from bcmb_jax.errors import InputError
from tests.data.ingest.test_pubmed import article, article_set
from tests.fixtures.mds_files import write_mds
from tests.fixtures.xml_files import jats, pack

BOUND = 2000
MANY = 300_000  # characters: more than any buffer holds
LONG = "secret " * (MANY // 7)
LINES = 'secret, ""x""\n' * (MANY // 14)


def parquet(texts: list[str]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({"text": texts}), stream)
    return stream.getvalue()


def articles(text: str) -> str:
    return "".join(jats(f"<p>{t}</p>\n", front="") for t in ("a", text, "c"))


def lines(*texts: str) -> str:
    return "".join(json.dumps({"text": text}) + "\n" for text in texts)


def citations(text: str) -> str:
    abstracts = (f"<AbstractText>{x}</AbstractText>" for x in ("a", text, "c"))
    return article_set(*(article(i, abstract=x) for i, x in enumerate(abstracts, start=1)))


CONTENTS: dict[str, tuple[str, str | bytes, list[str | int]]] = {
    "csv": ("csv", f"id,text\n1,a\n2,{LONG}\n3,c\n", ["a", 3, "c"]),
    "csv, quoted": ("csv", f'id,text\n1,a\n2,"{LINES}"\n3,c\n', ["a", 3, "c"]),
    "csv, first": ("csv", f"id,text\n1,{LONG}\n2,b\n3,c\n", [2, "b", "c"]),
    "csv, last": ("csv", f"id,text\n1,a\n2,{LONG}", ["a", 3]),
    "csv, carriage returns": ("csv", f"id,text\r1,a\r2,{LONG}\r3,c\r", ["a", 3, "c"]),
    "tsv": ("tsv", f"id\ttext\n1\ta\n2\t{LONG}\n3\tc\n", ["a", 3, "c"]),
    "jsonl": ("jsonl", lines("a", LONG, "c"), ["a", 2, "c"]),
    "jsonl, last": ("jsonl", lines("a") + LONG, ["a", 2]),
    "text": ("text", LONG, [1]),
    "parquet": ("parquet", parquet(["a", LONG, "c"]), ["a", 2, "c"]),
    "pubmed": ("pubmed", citations(LONG), ["Title.\n\na", 6, "Title.\n\nc"]),
    "pubmed, tags": ("pubmed", citations("<i/>" * 40_000), ["Title.\n\na", 6, "Title.\n\nc"]),
    "pmc": ("pmc", articles(LONG), ["a", 2, "c"]),
    "pmc, nested": ("pmc", articles("<sec>" * 9000 + "</sec>" * 9000), ["a", 2, "c"]),
}  # fmt: skip


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", CONTENTS)
def test_a_record_that_is_too_long_is_left_out_and_named(
    tmp_path: Path, kind: str, packed: bool
) -> None:
    format, content, expected = CONTENTS[kind]
    name = f"input.{ {'text': 'txt', 'pubmed': 'xml', 'pmc': 'xml'}.get(format, format) }"
    data = content.encode() if isinstance(content, str) else content
    if packed and format == "parquet":
        pytest.skip("Parquet packs its own columns")
    file = tmp_path / (f"{name}.gz" if packed else name)
    file.write_bytes(gzip.compress(data) if packed else data)
    bounds = Bounds(BOUND, 10_000)
    text = None if format in ("pubmed", "pmc", "text") else "text"
    found = list(read([file], format, text, bounds=bounds))
    assert [r.text if isinstance(r, Document) else (r.reason, r.line) for r in found] == [
        (TOO_LONG, x) if isinstance(x, int) else x for x in expected
    ]
    whole = list(read([file], format, text, bounds=Bounds(10 * MANY, 10_000)))
    assert not any(getattr(r, "reason", "") == TOO_LONG for r in whole)


def test_what_only_some_sources_have_is_bounded_too(tmp_path: Path) -> None:
    (tmp_path / "note.json").write_text(json.dumps({"text": LONG}))
    (tmp_path / "ADE-NEG.txt").write_text(f"1 NEG a\n2 NEG {LONG}\n3 NEG c\n")
    (tmp_path / "articles.tar").write_bytes(pack([("a.xml", jats(f"<p>{LONG}</p>"))]))
    write_mds(tmp_path / "mds", {"text": "str"}, [[[b"a"], [LONG.encode()], [b"c"]]], "zstd")
    bounds = Bounds(BOUND)

    def reasons(records: Any) -> list[Any]:
        return [(r.reason, r.line) if isinstance(r, Skipped) else r.text for r in records]

    left_out = [(TOO_LONG, 1)]
    note = Records([tmp_path / "note.json"], read_json, "text", bounds=bounds)
    assert reasons(note) == left_out
    assert reasons(read([tmp_path / "articles.tar"], "pmc", bounds=bounds)) == left_out
    ade = Records([tmp_path / "ADE-NEG.txt"], read_ade, bounds=bounds)
    assert reasons(ade) == ["a", (TOO_LONG, 2), "c"]
    mds = Records([tmp_path / "mds/index.json"], read_mds, "text", bounds=bounds)
    assert reasons(mds) == ["a", (TOO_LONG, 2), "c"]


def test_markup_that_never_ends_or_nests_without_end_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.xml"
    for content, message in (
        (f"<article><!-- {LONG} --></article>" * 2, "line 1: longer than --max-record-bytes"),
        (f'<article x="{LONG}"/>' * 2, "line 1: longer than --max-record-bytes"),
        ("<x>" * 200_000 + "<article/>" * 2, "line 1: .* nested too deeply"),
    ):
        file.write_text(content)
        with pytest.raises(InputError, match=message) as caught:
            list(read([file], "pmc", bounds=Bounds(BOUND)))
        assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("format", "begin"),
    [("csv", "text\n"), ("jsonl", ""), ("pubmed", "<PubmedArticle>"), ("pmc", "<article>")],
)
def test_a_file_that_unpacks_to_too_much_is_refused(
    tmp_path: Path, format: str, begin: str
) -> None:
    file = tmp_path / ("input.xml.gz" if format[0] == "p" else f"input.{format}.gz")
    file.write_bytes(gzip.compress(begin.encode() + b"a" * 5_000_000))
    message = f"unpacks to more than 100 times its {file.stat().st_size:,} bytes: .*--max-expansion"
    with pytest.raises(InputError, match=message):
        list(read([file], format, bounds=Bounds(BOUND)))


def test_a_record_always_fits_however_small_its_file_is(tmp_path: Path) -> None:
    (tmp_path / "small.txt.gz").write_bytes(gzip.compress(b"a " * (BOUND // 2)))
    (small,) = read([tmp_path / "small.txt.gz"], "text", bounds=Bounds(BOUND, 1))
    assert isinstance(small, Document)
