# SPDX-License-Identifier: Apache-2.0
"""PMC's JATS: the text of an article, and an account of all that is none."""

import gzip
import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.data.ingest.jats import read_jats
from bcmb_jax.data.ingest.pmc import read_package
from bcmb_jax.data.ingest.record import Document
from bcmb_jax.errors import InputError
from tests.fixtures.xml_files import BOMB, FRONT, jats, of, pack, records, write


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
        # A number above or below the line stays a number of its own.
        ("<p>10<sup>-3</sup>, Cl<sup>-</sup>, x<sub>2</sub></p>", "10^-3, Cl-, x2"),
        (
            "<p>10<sup>9</sup>/L, 3.2 × 10 <sup>9</sup>, m<sup>-2</sup></p>",
            "10^9/L, 3.2 × 10 9, m-2",
        ),
        ("<p><italic>10</italic><sup><italic>9</italic></sup>5</p>", "10^9 5"),
        ("<p>2<sup>−ΔΔCt</sup>, 2<sup>nd</sup>, Ca<sup>2+</sup></p>", "2^−ΔΔCt, 2nd, Ca2+"),
        ("<p>SO<sub>4</sub><sup>2-</sup>, <sup>131</sup>I</p>", "SO4^2-, 131I"),
        ("<p>log<sub>10</sub>5, 10<sub>2</sub></p>", "log10 5, 10_2"),
        ("<p>2<sup>1</sup>/<sub>2</sub> and <sup>1</sup>/<sub>2</sub></p>", "2 1/2 and 1/2"),
        (
            '<p>10<sup>9,<xref ref-type="bibr">3</xref></sup>/L<sup>4</sup></p>',
            "10^9,/L4",
        ),
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


SECTIONS = """<sec xml:lang="en"><p>English.</p></sec><sec xml:lang="fr"><title>Version</title>
<p>Texte.</p></sec><p xml:lang="de">Absatz.</p><p>The <italic xml:lang="la">E. coli</italic>.</p>
<list><list-item xml:lang="es"><p>uno</p></list-item><list-item><p>one</p></list-item></list>"""
ABSTRACTS = """<abstract xml:lang="EN-us"><p>English.</p></abstract>
<abstract xml:lang="fr"><p>Resume.</p></abstract>
<abstract xml:lang="es" abstract-type="summary"><p>Resumen.</p></abstract>
<trans-abstract xml:lang="en"><p>Again.</p></trans-abstract>"""


def test_only_the_english_of_an_english_article_is_read() -> None:
    assert body(SECTIONS) == "English.\nThe E. coli.\none"
    assert body('<p xml:lang="">a</p><p lang="EN-GB">b</p><p lang="deu">c</p>') == "a\nb"

    def text(abstracts: str, title: str = "<article-title>T</article-title>") -> str:
        front = f"<title-group>{title}</title-group>{abstracts}"
        front = f"<front><article-meta>{front}</article-meta></front>"
        ((text, _),) = of(jats("<p>a</p>", front), read_jats)
        return text

    assert text(ABSTRACTS) == "T\n\nEnglish.\n\na"
    assert text(ABSTRACTS.replace("EN-us", "pt")) == "T\n\nAgain.\n\na"
    assert text(ABSTRACTS, '<article-title xml:lang="pt">T</article-title>') == "English.\n\na"
    assert text("<trans-abstract><p>Unsaid.</p></trans-abstract>") == "T\n\na"
    foreign = jats("<p>a</p>").replace("<body>", '<body xml:lang="fr">')
    assert of(foreign, read_jats) == [("not English", 1)]


def test_articles_that_follow_each_other_are_all_read() -> None:
    one, two = jats("<p>a</p>", front=""), jats("<p>b</p>", front="")
    declared = f'<?xml version="1.0"?>\n<!DOCTYPE article SYSTEM "a.dtd">\n{two}\n'
    assert of(f"\n \n{declared}{declared}\ufeff{one}{two}", read_jats) == [
        ("b", 5),
        ("b", 8),
        ("a", 9),
        ("b", 9),
    ]


ARTICLES = "".join(jats(f"<p>Text {i}.</p>", front="") for i in range(4))
SET = f"<pmc-articleset>{ARTICLES}</pmc-articleset>"


@pytest.mark.parametrize(
    "content",
    [
        SET.replace("Text 2.</p>", "Text 2.</b>"),
        SET[: SET.index("Text 2.")],
        SET[: SET.index("Text 0.")],
        SET.replace("Text 0.", "&bogus;"),
        SET.removesuffix("</pmc-articleset>"),
        SET.replace("Text 2.</p></body></article>", "Text 2."),
        BOMB + SET,
        ARTICLES.replace("Text 2.</p>", "Text 2.</b>"),
        ARTICLES.replace("Text 0.", "&bogus;"),
        ARTICLES[: ARTICLES.index("Text 2.")],
        BOMB + ARTICLES,
        ARTICLES.replace("Text 0.</p>", "Text 0." + " " * 200_000),
    ],
)
def test_a_damaged_file_of_articles_does_not_lose_the_others(content: str) -> None:
    for encoding in ("utf-8", "utf-16"):
        stream = io.BytesIO(content.encode(encoding))
        with pytest.raises(InputError, match=r"a.xml, line \d+: broken: .* would be lost"):
            list(read_jats(stream, "a.xml"))


def test_a_damaged_file_of_one_article_is_counted() -> None:
    for content in (jats("<p>a</p>")[:-5], jats("<p>a</b>"), BOMB + jats("<p>a</p>")):
        ((reason, _),) = of(content, read_jats)
        assert reason.startswith("broken: ")


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
    # A third writes "10-3" six times, where this reader writes "10^-3".
    assert (identical, ours, theirs, common) == (9, 41_797, 41_801, 41_791)

    members = [
        (f"PMC/{f.stem}.nxml", t) for f, t in zip(files, map(_read_text, files), strict=True)
    ]
    (package,) = write(tmp_path, {"a.tar.gz": gzip.compress(pack(members), 1)})
    packed = [d.text for d in records([package], read_package) if isinstance(d, Document)]
    assert packed == [d.text for d in documents]


def _read_text(file: Path) -> str:
    content = file.read_bytes()
    return (gzip.decompress(content) if file.suffix == ".gz" else content).decode()
