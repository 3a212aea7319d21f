# SPDX-License-Identifier: Apache-2.0
"""PubMed's XML: the abstract of an article, once, and an account of all that is none."""

import gzip
import io
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.data.ingest import read
from bcmb_jax.data.ingest.files import Records
from bcmb_jax.data.ingest.pubmed import DELETED, STAGE, _find_fates, pubmed_reader, read_pubmed
from bcmb_jax.data.ingest.record import SUPERSEDED, Document
from bcmb_jax.errors import InputError
from tests.fixtures.xml_files import BOMB, DOCTYPE, KEPT, SECRET, of, records, write


def article(
    pmid: object = 1,
    title: str = "Title.",
    abstract: str = "<AbstractText>Text.</AbstractText>",
    version: int = 1,
    language: str = "eng",
) -> str:
    """A PubmedArticle of three lines."""
    return (
        f'<PubmedArticle><MedlineCitation><PMID Version="{version}">{pmid}</PMID>\n'
        f"<Article><ArticleTitle>{title}</ArticleTitle><Abstract>{abstract}</Abstract>\n"
        f"<Language>{language}</Language></Article><CommentsCorrectionsList><CommentsCorrections>"
        "<PMID>77</PMID></CommentsCorrections></CommentsCorrectionsList></MedlineCitation>"
        "</PubmedArticle>\n"
    )


def article_set(*parts: str) -> str:
    return f"{DOCTYPE}<PubmedArticleSet>\n{''.join(parts)}</PubmedArticleSet>\n"


def deletion(*pmids: object) -> str:
    inner = "".join(f'<PMID Version="1">{pmid}</PMID>' for pmid in pmids)
    return f"<DeleteCitation>{inner}</DeleteCitation>\n"


def test_a_structured_abstract_keeps_its_labels() -> None:
    abstract = """<AbstractText Label="AIMS &amp; METHODS:" NlmCategory="METHODS">a
        b</AbstractText><AbstractText Label="UNLABELLED">c</AbstractText>
        <AbstractText Label="EMPTY"> </AbstractText><AbstractText>d (ABSTRACT TRUNCATED AT 250
        WORDS)</AbstractText><CopyrightInformation>e</CopyrightInformation>"""
    expected = "Title.\n\nAIMS & METHODS: a b\nc\nd"
    assert of(article_set(article(abstract=abstract)), read_pubmed) == [(expected, 3)]


@pytest.mark.parametrize(
    ("source", "text"),
    [
        ("CO<sub>2</sub>, <i>in <b>vivo</b></i>", "CO2, in vivo"),
        ("10<sup>9</sup>/L, 10&lt;SUP&gt;-3&lt;/SUP&gt;, m<sup>-2</sup>", "10^9/L, 10^-3, m-2"),
        ("2&amp;lt;sup&amp;gt;8&amp;lt;/sup&amp;gt;5, 10<sub>2</sub>", "2^8 5, 10_2"),
        (
            "<msup><mn>10</mn><mn>9</mn></msup>, <mfrac><mn>1</mn><mn>2</mn></mfrac>, "
            "<msubsup><mi>x</mi><mn>1</mn><mn>2</mn></msubsup>",
            "10^9, 1/2, x1^2",
        ),
        ("p &amp;lt; 0.05 &lt; 1", "p < 0.05 < 1"),
        ("p &amp;amp;amp;lt; 0.05, R&amp;D", "p < 0.05, R&D"),
        ("&amp;#946; &amp;#x3B2; &#946;&amp;nbsp;&#160; c", "β β β c"),
        ("&lt;i&gt;E. coli&lt;/i&gt; &amp;lt;sub&amp;gt;2&amp;lt;/sub&amp;gt;", "E. coli 2"),
        ("a &amp;notes; &amp;bogus; &amp;amp b", "a &notes; &bogus; &amp b"),
        ("a&amp;#0;b&amp;#xD800;", "a\ufffdb\ufffd"),
        ("<!-- no -->a<?no?>b<![CDATA[<c]]>", "ab<c"),
        ("a &beta; b", "a β b"),
        (
            '<mml:math xmlns:mml="m"><mml:semantics><mml:mi>x</mml:mi><mml:mo>=</mml:mo>'
            "<mml:annotation>junk</mml:annotation></mml:semantics></mml:math> holds",
            "x= holds",
        ),
    ],
)
def test_markup_becomes_text_however_often_it_was_escaped(source: str, text: str) -> None:
    content = article_set(article(abstract=f"<AbstractText>{source}</AbstractText>"))
    assert of(content, read_pubmed) == [(f"Title.\n\n{text}", 3)]


@pytest.mark.parametrize(
    ("title", "expected"),
    [
        ("[Title in brackets].", "Title in brackets.\n\n"),
        ("[Title in brackets.]", "Title in brackets.\n\n"),
        ("[Is it [11C] one?].", "Is it [11C] one?\n\n"),
        ("[3H]ouabain and [14C].", "[3H]ouabain and [14C].\n\n"),
        ("[Open.", "[Open.\n\n"),
        ("[Not Available].", ""),
        ("", ""),
    ],
)
def test_a_translated_title_loses_its_brackets(title: str, expected: str) -> None:
    assert of(article_set(article(title=title)), read_pubmed) == [(f"{expected}Text.", 3)]


def test_pubmed_counts_what_it_cannot_use() -> None:
    found = of(
        article_set(
            article(language="ger"),
            article(language="ger</Language><Language>eng"),
            article(abstract=""),
            article(abstract="<AbstractText> </AbstractText>").replace(
                "</Article>",
                '</Article><OtherAbstract Language="fre"><AbstractText>b</AbstractText>'
                "</OtherAbstract>",
            ),
            article(pmid="12a"),
            article(pmid=""),
            deletion(1),
            "<PubmedBookArticle><BookDocument><PMID>1</PMID></BookDocument></PubmedBookArticle>",
        ),
        read_pubmed,
    )
    assert found == [
        ("not English", 3),
        ("Title.\n\nText.", 6),
        ("no abstract", 9),
        ("no abstract", 12),
        ("broken: no PMID", 15),
        ("broken: no PMID", 18),
        ("not a journal article", 22),
    ]


def test_an_abstract_may_stand_only_under_other_abstracts() -> None:
    def other(pmid: int, *abstracts: tuple[str, str], **more: str) -> str:
        parts = (
            f"<OtherAbstract {kind}><AbstractText>{text}</AbstractText></OtherAbstract>"
            for kind, text in abstracts
        )
        whole = article(pmid, **more).replace("</Article>", f"</Article>{''.join(parts)}")
        return whole

    english = ('Type="PIP" Language="eng"', "Other.")
    found = of(
        article_set(
            other(1, english, abstract=""),
            other(2, ('Type="Publisher" Language="fre"', "Autre."), abstract=""),
            other(3, english),
            other(4, english, abstract="", language="fre"),
            other(5, ('Language="spa"', "Otro."), ('Type="KIE"', "Second."), abstract=""),
            other(6, ('Language="ENG"', " "), english, ("", "Third."), abstract=""),
        ),
        read_pubmed,
    )
    texts = ["Other.", "no abstract", "Text.", "not English", "Second.", "Other."]
    assert [text.removeprefix("Title.\n\n") for text, _ in found] == texts


@pytest.mark.parametrize(
    ("content", "lines"),
    [
        ("\n{a}", [4]),
        ("\ufeff \n\r\n{a}", [5]),
        ("{a}{b}", [3, 9]),
        ("{a}\n\n{b}<!-- end -->\n{a}", [3, 11, 18]),
        ("{a}\ufeff{b}", [3, 9]),
        ("{b}" + " " * 65_500 + "{a}" + "<!-- -->" * 10_000 + "{a}", [3, 9, 15]),
    ],
)
def test_files_joined_or_begun_by_blank_lines_are_read(content: str, lines: list[int]) -> None:
    declared = f'<?xml version="1.0" encoding="utf-8"?>\n{article_set(article(1))}'
    declared = declared.replace("<PubmedArticleSet>\n", "<PubmedArticleSet>")
    plain = f"\n{article_set(article(2))}".replace("<PubmedArticleSet>\n", "<PubmedArticleSet>")
    found = of(content.format(a=declared, b=plain), read_pubmed)
    assert [line for _, line in found] == lines


def test_what_follows_a_whole_file_has_to_be_another() -> None:
    whole = article_set(article(1))
    for rest in ("</PubmedArticleSet>", "an error page", "<PubmedArticleSet>", "&amp;", "<"):
        with pytest.raises(InputError, match=r"a.xml, line [67]: broken: not well-formed XML: f"):
            of(whole + rest, read_pubmed)


def test_a_pubmed_file_that_is_not_whole_or_none_is_an_error() -> None:
    whole = article_set(*[article(abstract=f"<AbstractText>{SECRET}</AbstractText>")] * 3)
    for content, message in [
        (whole[:-40], "a.xml, line 1[0-9]: broken: not well-formed XML: fetch it again"),
        (whole.replace("Title.", "R&D", 1), "line 4: broken: not well-formed XML"),
        (whole.replace("Title.", "&bogus;", 1), "line 4: broken: not well-formed XML"),
        (whole.replace(DOCTYPE, BOMB), "line 2: broken: XML that declares entities"),
        (f'<?xml version="1.0" encoding="{SECRET}"?>{whole}', "XML in an unknown encoding"),
        ("", "not well-formed XML"),
        ("<article/>", "holds no PubmedArticle"),
    ]:
        with pytest.raises(InputError, match=message) as caught:
            of(content, read_pubmed)
        assert SECRET not in str(caught.value)


def test_the_articles_before_a_break_come_first() -> None:
    content = article_set(article(), "</Article>").encode()
    found = read_pubmed(io.BytesIO(content), "a")
    assert next(found) == Document("Title.\n\nText.", "1", "a", 3)
    with pytest.raises(InputError):
        list(found)


def fates(folder: Path, contents: Mapping[str, str | bytes]) -> list[tuple[str, str | None, int]]:
    """(group or reason, file, line); the text says which version was kept."""
    files = write(folder, contents)
    return [
        (r.text.removeprefix("Title.\n\n") if isinstance(r, Document) else r.reason, r.file, r.line)
        for r in records(files, pubmed_reader(files))
    ]


def version(pmid: object, text: str, version: int = 1) -> str:
    return article(pmid, abstract=f"<AbstractText>{text}</AbstractText>", version=version)


def test_only_the_latest_version_of_an_article_counts(tmp_path: Path) -> None:
    updates = article_set(
        version(2, KEPT),
        version(3, "old"),
        version(3, KEPT),
        version(4, "old", version=1),
        deletion(5, 8),
    )
    contents: dict[str, str | bytes] = {
        "updates/p24n0002.xml": updates,
        "updates/p24n0003.xml": article_set(version(5, KEPT), deletion(10, 6), version(8, KEPT)),
        "baseline/p24n0001.xml.gz": gzip.compress(
            article_set(
                version(1, KEPT),
                version(2, "old"),
                version(4, "old", version=1),
                version(4, KEPT, version=2),
                version(5, "old"),
                version(6, "old"),
                version(7, KEPT, version=1),
                version(7, "old", version=2),
                version("?", "no number"),
                version("!", "no number"),
            ).encode()
        ),
        "updates/p24n0004.xml": article_set(
            deletion(9), '<DeleteCitation><PMID Version="2">7</PMID></DeleteCitation>'
        ),
    }
    found = fates(tmp_path, contents)
    assert [(what, line) for what, file, line in found if "0001" in file] == [
        (KEPT, 3),
        (SUPERSEDED, 6),
        (SUPERSEDED, 9),
        (KEPT, 12),
        (DELETED, 15),
        (DELETED, 18),
        (KEPT, 21),
        (DELETED, 24),
        ("broken: no PMID", 27),
        ("broken: no PMID", 30),
    ]
    assert [what for what, file, _ in found if "0002" in file] == [
        KEPT,
        SUPERSEDED,
        KEPT,
        SUPERSEDED,
    ]
    assert [what for what, file, _ in found if "0003" in file] == [KEPT, KEPT]
    # Files are read as given, the order of their names says what is later.
    assert fates(tmp_path, dict(reversed(contents.items()))) != found
    assert sorted(fates(tmp_path, dict(reversed(contents.items())))) == sorted(found)


def test_a_deletion_within_a_file_takes_what_came_before_it(tmp_path: Path) -> None:
    content = article_set(version(1, "old"), deletion(1), version(2, KEPT))
    assert [what for what, *_ in fates(tmp_path, {"a.xml": content})] == [DELETED, KEPT]


def test_fates_do_not_depend_on_how_the_articles_are_parted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = np.random.default_rng(0)
    parts = [
        deletion(random.integers(1, 60))
        if random.random() < 0.2
        else version(random.integers(1, 60), "a", int(random.integers(1, 3)))
        for _ in range(400)
    ]
    contents = {f"p{i}.xml": article_set(*parts[i::4]) for i in range(4)}
    found = fates(tmp_path, contents)
    assert {what for what, *_ in found} == {"a", DELETED, SUPERSEDED}
    monkeypatch.setattr("bcmb_jax.data.ingest.pubmed._PARTS", 1)
    assert fates(tmp_path, contents) == found


def test_looking_for_versions_is_lean_and_says_how_far_it_is(tmp_path: Path) -> None:
    count = 1_000_000
    pmids = np.random.default_rng(0).permutation(count).astype(np.uint32) + 1
    tracemalloc.start()
    found = _find_fates(pmids, np.ones(count, np.uint16), {1 << 16 | 1: count})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.sum() == 2
    assert peak < 10 * count
    files = [f"p{i}.xml" for i in range(2)]
    write(tmp_path, {file: article_set(*map(article, range(1, 1501))) for file in files})
    steps = []
    records = read([tmp_path], "pubmed", progress=lambda *a, **more: steps.append((*a, more)))
    assert not steps  # nothing is read before it is asked for
    next(iter(records))
    assert [step[:2] for step in steps] == [(STAGE, n * 1000) for n in (1, 2, 3)]
    fractions = [step[2]["fraction"] for step in steps]
    assert 0.2 < fractions[0] < fractions[1] < fractions[2] == 1


def test_pubmed_in_jsonl_counts_line_by_line_beside_xml(tmp_path: Path) -> None:
    line = '{"pmid": 1, "title": "Title.", "abstract": "%s"}\n'
    contents: dict[str, str | bytes] = {
        "a/1.jsonl.gz": gzip.compress((line % KEPT + "{\n" + line % KEPT).encode()),
        "b/2.xml": article_set(version(2, "old"), version(2, KEPT)),
    }
    found = [(what, line) for what, _, line in fates(tmp_path, contents)]
    kept = [(KEPT, 1), ("broken: not a JSON object", 2), (KEPT, 3)]
    assert found == [*kept, (SUPERSEDED, 3), (KEPT, 6)]
    (record, *_) = read([tmp_path / "a"], "pubmed")
    assert isinstance(record, Document)
    assert record.group == "1"


def test_files_that_change_between_the_two_readings_are_an_error(tmp_path: Path) -> None:
    files = write(tmp_path, {"a.xml": article_set(article(1), article(2))})
    reader = pubmed_reader(files)
    for articles in ([article(1)], [article(i) for i in range(1, 4)]):
        write(tmp_path, {"a.xml": article_set(*articles)})
        with pytest.raises(InputError, match=r"a.xml has changed while it was read"):
            records(files, reader)


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    text = f"<AbstractText>{'word ' * 1000}</AbstractText>"
    content = article_set(*(article(i, abstract=text) for i in range(1, 801)))
    (file,) = write(tmp_path, {"a.xml": content})
    assert len(content) > 4_000_000
    tracemalloc.start()
    found = sum(isinstance(r, Document) for r in Records([file], read_pubmed))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found == 800
    assert peak < 1_000_000  # a chunk of the file, its articles and their text, several times over


def test_a_cut_pubmed_gzip_file_is_an_error(tmp_path: Path) -> None:
    content = gzip.compress(article_set(*(article(i) for i in range(1, 3000))).encode())
    files = write(tmp_path, {"a.xml.gz": content[:-100]})
    with pytest.raises(InputError, match=r"a.xml.gz, line \d+: damaged or incomplete gzip file"):
        records(files, read_pubmed)


def test_a_real_pubmed_record(shared: Path) -> None:
    (file,) = (shared / "data/pretrain/pubmed/xml_sample").glob("*.xml")
    (document,) = records([file], pubmed_reader([file]))
    assert isinstance(document, Document)
    assert (document.group, document.line) == ("29768149", 4)
    title, abstract = document.text.split("\n\n")
    assert title == "Inhaled Combined Budesonide-Formoterol as Needed in Mild Asthma."
    labels = [paragraph.split(":")[0] for paragraph in abstract.split("\n")]
    assert labels == ["BACKGROUND", "METHODS", "RESULTS", "CONCLUSIONS"]
