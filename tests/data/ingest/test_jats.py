# SPDX-License-Identifier: Apache-2.0
"""PMC's JATS: the text of an article, and an account of all that is none."""

import gzip
import io
import json
import tarfile
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.data.ingest import read
from bcmb_jax.data.ingest.jats import read_jats, read_package
from bcmb_jax.data.ingest.record import SUPERSEDED, Document
from bcmb_jax.errors import InputError
from tests.fixtures.xml_files import BOMB, KEPT, SECRET, of, records, write

FRONT = """<front><article-meta>
<article-id pub-id-type="pmid">12</article-id><article-id pub-id-type="pmc">34</article-id>
<title-group><article-title>A <italic>title</italic><xref ref-type="fn">*</xref>
</article-title></title-group>
<contrib-group><contrib><name><surname>Name</surname></name></contrib></contrib-group>
<abstract abstract-type="graphical"><p>picture</p></abstract>
<abstract><sec><title>Aims</title><p>Abstract.</p></sec></abstract>
<trans-abstract><p>Zusammenfassung</p></trans-abstract>
</article-meta></front>"""


def jats(body: str, front: str = FRONT, attributes: str = "") -> str:
    return f"<article {attributes}>{front}<body>{body}</body></article>"


def body(content: str) -> str:
    """The text that a body gives."""
    ((text, _),) = of(jats(content, front=""), read_jats)
    return text


def test_an_article_is_title_abstract_and_body() -> None:
    back = "<back><ack><p>thanks</p></ack><ref-list><ref>r</ref></ref-list></back><sub-article>"
    content = jats("<sec><label>1</label><title>Methods</title><p>a\n b</p><p>c</p></sec>")
    content = content.replace("</article>", f"{back}<body><p>letter</p></body></sub-article>") + (
        "</article>"
    )
    expected = Document("A title\n\nAims\nAbstract.\n\nMethods\na b\nc", "PMC34", "a.xml", 2)
    assert list(read_jats(io.BytesIO(b"\n" + content.encode()), "a.xml")) == [expected]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        # Citations on the line stay, as they stand in print; those above it go.
        ('<p>a [<xref ref-type="bibr">1</xref>-<xref ref-type="bibr">3</xref>].</p>', "a [1-3]."),
        ('<p>a (<xref ref-type="bibr">Roe 2001</xref>), b.</p>', "a (Roe 2001), b."),
        ('<p>a (<xref ref-type="fig">Figure 1</xref>).</p>', "a (Figure 1)."),
        (
            '<p>a.<sup><xref ref-type="bibr">1</xref>–<xref ref-type="bibr">3</xref></sup> B</p>',
            "a. B",
        ),
        (
            '<p>a<xref ref-type="bibr"><sup>1</sup></xref><sup>,</sup>'
            '<xref ref-type="bibr"><sup>2</sup></xref> b (c<xref ref-type="fn">*</xref>).</p>',
            "a b (c).",
        ),
        ('<p>a<sup>[<xref ref-type="bibr">1</xref>]</sup>.</p>', "a."),
        ('<p>a [<xref ref-type="bibr" rid="B1"/>,<xref ref-type="bibr" rid="B2"/>].</p>', "a ."),
        ("<p>10<sup>-3</sup>, Cl<sup>-</sup>, x<sub>2</sub></p>", "10-3, Cl-, x2"),
        # Blocks within paragraphs.
        ("<p>a<list><list-item><label>1</label><p>b</p></list-item></list>c</p>", "a\nb\nc"),
        (
            "<def-list><def-item><term>MS</term><def><p>multiple</p><p>s.</p></def></def-item>"
            "</def-list>",
            "MS multiple s.",
        ),
        ("<disp-quote><p>a<break/>b</p></disp-quote>c", "a b\nc"),
        # What is no running text.
        (
            "<p>a <inline-formula><italic>x</italic></inline-formula>b<fn><p>n</p></fn>"
            "<mml:math xmlns:mml='m'><mml:mi>x</mml:mi></mml:math></p>"
            "<disp-formula>y</disp-formula><fig><caption><p>f</p></caption></fig><table-wrap><table><tr><td>t</td></tr></table>"
            "</table-wrap><supplementary-material><p>s</p></supplementary-material>",
            "a b",
        ),
        # A title over nothing is left out, with the sections that hold nothing else.
        (
            "<sec><title>Figures</title><sec><title>One</title><fig/></sec></sec>"
            "<sec><title>End</title><p>a</p></sec>",
            "End\na",
        ),
    ],
)
def test_a_body_is_its_running_text(source: str, text: str) -> None:
    assert body(source) == text


def test_prefixes_and_sets_of_articles_are_read() -> None:
    content = jats("<p>a</p>", attributes='xml:lang="EN"')
    plain = of(content, read_jats)
    prefixed = content.replace("<", "<j:").replace("<j:/", "</j:")
    prefixed = prefixed.replace("<j:article ", '<j:article xmlns:j="https://jats.nlm.nih.gov" ')
    assert of(prefixed, read_jats) == plain
    namespaced = content.replace("<article ", '<article xmlns="https://jats.nlm.nih.gov" ')
    both = f"<pmc-articleset>{namespaced}\n{content}</pmc-articleset>"
    lines = content.count("\n") + 1
    assert of(both, read_jats) == [(plain[0][0], 1), (plain[0][0], 1 + lines)]


@pytest.mark.parametrize(
    ("content", "reason", "line"),
    [
        (jats(""), "no body text", 1),
        (jats("<sec><title>Methods</title></sec>"), "no body text", 1),
        (jats("<p>a</p>").replace("body>", "x>"), "no body text", 1),
        (f"<article>{FRONT}<response>{jats('<p>a</p>')}</response></article>", "no body text", 1),
        (jats("<p>a</p>", attributes='xml:lang="de"'), "not English", 1),
        (jats("<p>a</p>")[:-5], "broken: not well-formed XML", 9),
        (jats("<p>a\n&bogus;</p>"), "broken: not well-formed XML", 10),
        (BOMB + jats("<p>&b;</p>"), "broken: XML that declares entities", 2),
        (jats("<sec>" * 5000 + "<p>a</p>" + "</sec>" * 5000), "broken: elements nested", 1),
        ("<html><p>a</p></html>", "broken: no article element", 1),
        ("", "broken: not well-formed XML", 1),
    ],
)
def test_an_article_without_text_is_skipped_with_its_reason(
    content: str, reason: str, line: int
) -> None:
    ((found, found_line),) = of(content, read_jats)
    assert (found[: len(reason)], found_line) == (reason, line)


def test_the_group_of_an_article_is_its_first_known_id() -> None:
    def group(front: str) -> Any:
        content = io.BytesIO(jats("<p>a</p>", front=front).encode())
        (found,) = read_jats(content, "a.xml")
        return found.group

    assert group(FRONT) == "PMC34"
    assert group(FRONT.replace('"pmc">34', '"pmcid">PMC34')) == "PMC34"
    assert group(FRONT.replace('"pmc"', '"doi"')) == "12"
    assert group(FRONT.replace('"pmc"', '"doi"').replace('"pmid"', '"x"')) == "a.xml"
    assert group("") == "a.xml"


def pack(members: list[tuple[str, str]], links: tuple[str, ...] = ()) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content.encode())
            tar.addfile(info, io.BytesIO(content.encode()))
        for name in links:
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, "/etc/passwd"
            tar.addfile(info)
    return stream.getvalue()


def test_a_package_gives_the_articles_in_it(tmp_path: Path) -> None:
    whole = jats("<p>a</p>", front="")
    content = pack(
        [
            ("./PMC1/a.nxml", whole),
            ("PMC1/a.jpg", "\0" * 600),
            ("PMC1/._a.nxml", "\0"),
            ("PMC1/cut.xml", f"<article>\n\n<p>{SECRET}"),
            ("../../b.xml", whole),
            ("/c\n\x1b[31m.XML", whole),
            ("x" * 300 + ".xml", whole),
            ("bomb.xml", BOMB + whole),
            ("data.xml", "<data/>"),
            ("last.xml", whole),
        ],
        links=("link.xml", "link.jpg"),
    )
    (file,) = write(tmp_path, {"PMC000.tar.gz": gzip.compress(content)})
    found = [(r.file, r.line, getattr(r, "reason", "a")) for r in records([file], read_package)]
    assert found == [
        ("PMC000.tar.gz!./PMC1/a.nxml", 1, "a"),
        ("PMC000.tar.gz!PMC1/cut.xml", 3, "broken: not well-formed XML"),
        ("PMC000.tar.gz!../../b.xml", 1, "a"),
        ("PMC000.tar.gz!/c\\n\\x1b[31m.XML", 1, "a"),
        (f"PMC000.tar.gz!…{'x' * 196}.xml", 1, "a"),
        ("PMC000.tar.gz!bomb.xml", 2, "broken: XML that declares entities"),
        ("PMC000.tar.gz!data.xml", 1, "broken: no article element"),
        ("PMC000.tar.gz!last.xml", 1, "a"),
        ("PMC000.tar.gz!link.xml", 1, "broken: not a plain file"),
    ]
    assert [path.name for path in tmp_path.rglob("*")] == ["PMC000.tar.gz"]


def test_a_package_that_is_not_whole_is_an_error(tmp_path: Path) -> None:
    text = "".join(str(i * i) for i in range(300))
    content = pack([(f"{i}.xml", jats(f"<p>{text}{i}</p>")) for i in range(20)])
    assert content[2048:2052] != b"\0" * 4
    size = 512 + -(-len(jats(f"<p>{text}0</p>")) // 512) * 512  # of a member
    damaged = bytearray(content)
    damaged[3 * size + 100] ^= 1
    for name, bad, after in [
        ("within a member", content[: 2 * size - 600], 1),
        ("within a header", content[: 2 * size + 100], 2),
        ("between members", content[: 2 * size], 2),
        ("a damaged header", bytes(damaged), 3),
        ("no tar", text.encode(), 0),
        ("nothing", b"", 0),
    ]:
        files = write(tmp_path, {"a.tar": bad})
        message = rf"a.tar is a damaged or incomplete tar file \(after {after} articles\)"
        with pytest.raises(InputError, match=message):
            pytest.fail(f"{name}: {len(records(files, read_package))} records")
    files = write(tmp_path, {"a.tar.gz": gzip.compress(content)[:-50]})
    with pytest.raises(InputError, match=r"a.tar.gz is a damaged or incomplete gzip file"):
        records(files, read_package)


def test_the_newest_of_an_article_counts_once(tmp_path: Path) -> None:
    front = FRONT.replace('"pmc">34', '"pmc">{}')

    def package(*pmcids: int) -> bytes:
        articles = [(f"PMC{i}.xml", jats("<p>a</p>", front.format(i))) for i in pmcids]
        return gzip.compress(pack(articles))

    contents: dict[str, str | bytes] = {
        "oa_comm_xml.PMC000xxxxxx.baseline.2024-12-18.tar.gz": package(1, 1025, 3),
        "oa_comm_xml.incr.2024-12-18.tar.gz": package(1, 5),
        "oa_comm_xml.incr.2025-01-03.tar.gz": package(3, 5, 1024),
        "PMC1024.xml": jats("<p>a</p>", front.format(1024)),
        "a.xml": jats("<p>a</p>", front=""),
        "b.xml": jats("<p>a</p>", front=""),
        "more.jsonl": '{"pmcid": "PMC1", "title": "a", "abstract": "b", "body": "c"}\n',
    }
    write(tmp_path, contents)
    articles = read([tmp_path], "pmc")
    for _ in range(2):  # a second reading counts anew
        found = [(r.file.split("_xml.")[-1], getattr(r, "reason", KEPT)) for r in articles]
        assert found == [
            ("incr.2025-01-03.tar.gz!PMC3.xml", KEPT),
            ("incr.2025-01-03.tar.gz!PMC5.xml", KEPT),
            ("incr.2025-01-03.tar.gz!PMC1024.xml", KEPT),
            ("incr.2024-12-18.tar.gz!PMC1.xml", KEPT),
            ("incr.2024-12-18.tar.gz!PMC5.xml", SUPERSEDED),
            ("PMC000xxxxxx.baseline.2024-12-18.tar.gz!PMC1.xml", SUPERSEDED),
            ("PMC000xxxxxx.baseline.2024-12-18.tar.gz!PMC1025.xml", KEPT),
            ("PMC000xxxxxx.baseline.2024-12-18.tar.gz!PMC3.xml", SUPERSEDED),
            ("PMC1024.xml", SUPERSEDED),
            ("a.xml", KEPT),
            ("b.xml", KEPT),
            ("more.jsonl", SUPERSEDED),
        ]


def test_real_articles_agree_with_the_corpus_made_of_them(shared: Path, tmp_path: Path) -> None:
    folder = shared / "data/pretrain/pmc"
    files = sorted((folder / "nxml").glob("*.nxml*"))
    documents = [d for d in records(files, read_jats) if isinstance(d, Document)]
    assert len(documents) == len(files) == 16
    groups = {d.group: d.text for d in documents}
    assert groups.keys() >= {"PMC3166277", "PMC2599765", "PMC3585041", "PMC3460867"}
    identical = ours = theirs = common = 0
    with gzip.open(folder / "pmc_fulltext_ccby.jsonl.gz", "rt", encoding="utf-8") as lines:
        for line in lines:
            # The identifier comes first; most of 1,300 articles need no parsing.
            if not any(f'"{group}"' in line[:40] for group in groups):
                continue
            row = json.loads(line)
            text = "\n\n".join(row[column] for column in ("title", "abstract", "body"))
            words = [Counter(t.split()) for t in (groups[row["pmcid"]], text)]
            identical += groups[row["pmcid"]] == text
            ours, theirs = (n + w.total() for n, w in zip((ours, theirs), words, strict=True))
            common += (words[0] & words[1]).total()
    # Two end with the title of a section, "Supplementary Material", that holds nothing.
    assert (identical, ours, theirs, common) == (10, 41_797, 41_801, 41_797)

    members = [
        (f"PMC/{f.stem}.nxml", t) for f, t in zip(files, map(_read_text, files), strict=True)
    ]
    (package,) = write(tmp_path, {"a.tar.gz": gzip.compress(pack(members), 1)})
    packed = [d.text for d in records([package], read_package) if isinstance(d, Document)]
    assert packed == [d.text for d in documents]


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    return (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
