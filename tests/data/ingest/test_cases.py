# SPDX-License-Identifier: Apache-2.0
"""Inputs that users of other projects reported, in the folders of shared/cases."""

from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.data.ingest import Document, read
from bcmb_jax.data.ingest.record import MARKED, NOT_ENGLISH, SUPERSEDED
from bcmb_jax.errors import InputError


@pytest.fixture
def cases(shared: Path) -> Path:
    if not (shared / "cases").is_dir():
        pytest.skip("needs ../shared/cases")
    return shared / "cases"


def found(*paths: Path, source: str, **more: Any) -> list[tuple[str | None, str]]:
    """Every record as (group, text) or (None, reason)."""
    return [
        (r.group, r.text) if isinstance(r, Document) else (None, getattr(r, "reason", ""))
        for r in read(paths, source, **more)
    ]


def test_an_english_abstract_under_other_abstracts(cases: Path) -> None:
    records = found(cases / "03-pubmed-otherabstract/a.xml", source="pubmed")
    assert records[0] == (
        "11",
        "Contraceptive use.\n\nAn English abstract of a population database that stands only here.",
    )
    assert records[1] == (None, "no abstract")
    assert records[2][0] == "13"
    assert records[2][1].count("\n") == 2
    assert records[3] == (None, NOT_ENGLISH)


def test_joined_files_of_pubmed(cases: Path) -> None:
    folder = cases / "05-pubmed-concatenated"
    texts = {name: found(folder / f"{name}.xml", source="pubmed") for name in "abce"}
    first, second = ("21", "One.\n\nFirst text."), ("22", "Two.\n\nSecond text.")
    assert texts["a"] == [first, second]
    assert texts["b"] == [first]
    assert texts["c"] == [("23", "Three.\n\nThird text.")]
    assert texts["e"] == [(None, "not a journal article"), (None, "broken: no PMID")]
    with pytest.raises(InputError, match="XML that declares entities"):
        found(folder / "d.xml", source="pubmed")


def test_other_languages_inside_an_article(cases: Path) -> None:
    folder = cases / "06-jats-languages"
    for name, expected in {
        "a": ("PMC100", "A title\n\nEnglish abstract.\n\nBody text."),
        "b": (None, NOT_ENGLISH),
        "c": ("PMC100", "A title\n\nIntro\nEnglish content."),
        "d": ("PMC100", "A title\n\nEnglish section."),
        "e": (None, NOT_ENGLISH),
        "f": (None, NOT_ENGLISH),
    }.items():
        assert found(folder / f"{name}.xml", source="pmc") == [expected]


def test_markup_inside_a_line(cases: Path) -> None:
    folder = cases / "07-jats-inline"
    ((_, text),) = found(folder / "a.xml", source="pmc")
    assert "Cells were seeded at 10^9/L and washed. See Fig. 1 and Table 1." in text
    assert "As in [1-3] and Smith et al. (2001).\nWith we found Km." in text
    assert "Raw <b>text</b> & more\nLine one. Tail after table.\nFirst item.\nSecond item." in text
    reasons = [found(folder / f"{name}.xml", source="pmc")[0][1] for name in "bcd"]
    assert [reason.split(" ")[0] for reason in reasons] == ["broken:"] * 3
    assert found(folder / "e.xml", source="pmc") == [("PMC7", "NS body.")]
    assert found(folder / "f.xml", source="pmc")[0][1].startswith("A title\n\nnaïve")
    assert [group for group, _ in found(folder / "g.xml", source="pmc")] == ["PMC100", "PMC101"]


def test_a_damaged_set_of_articles(cases: Path) -> None:
    folder = cases / "08-jats-articleset-damaged"
    assert len(found(folder / "good.xml", source="pmc")) == 6
    assert [group for group, _ in found(folder / "two.xml", source="pmc")] == ["PMC200", "PMC201"]
    for name in ("bad", "cut"):
        with pytest.raises(InputError, match=f"{name}.xml, line [34]: broken: .*, and other art"):
            found(folder / f"{name}.xml", source="pmc")


def test_one_patient_in_two_spellings(cases: Path) -> None:
    folder = cases / "09-group-float"

    def groups(*names: str) -> list[str | None]:
        files = [folder / name for name in names]
        source = files[0].suffix[1:]
        column = "SUBJECT_ID" if source != "jsonl" else "subject_id"
        text = "NOTE_TEXT" if source != "jsonl" else "text"
        more = {"text_column": text, "group_column": column}
        return [group for group, _ in found(*files, source=source, **more)]

    january, february = groups("jan.csv"), groups("feb.csv")
    assert january
    assert set(february) <= {*january, None}
    assert groups("a.csv", "b.csv") == ["10006", "10007", "10006", None, "10007"]
    assert groups("k.csv") == [*["10006"] * 3, "010006", None, None, None, "10006"]
    assert groups("j.jsonl")[:8] == [*["10006"] * 3, None, None, "10006", None, None]
    assert groups("p1.parquet", "p2.parquet") == ["10006", "10007", "10006", None, "10007"]
    for name, expected in {"p3": ["1", "2"], "p4": ["10006", "10007"]}.items():
        more = {"text_column": "text", "group_column": "g"}
        records = found(folder / f"{name}.parquet", source="parquet", **more)
        assert [group for group, _ in records] == expected


def test_notes_marked_as_errors_in_other_spellings(cases: Path) -> None:
    folder = cases / "20-mimic-resaved"

    def reasons(name: str) -> list[bool]:
        records = found(folder / name, source="mimic-iii")
        return [text == MARKED for _, text in records]

    assert reasons("pandas") == [False, True, True]
    assert reasons("bool") == [False, True, True, True, True]
    assert reasons("lower") == [False, True]
    assert reasons("index") == [False, True]
    assert reasons("orig") == [False, True, True, False]
    with pytest.raises(InputError, match="not 'ISERROR': correct --skip-column"):
        found(folder / "nofield", source="mimic-iii")
    assert found(folder / "nofield", source="mimic-iii", skip_column="none") == [("1", "x y")]


def test_lower_case_columns(cases: Path) -> None:
    records = found(cases / "mimic-iii-lower", source="mimic-iii")
    groups = [group for group, text in records if text != MARKED]
    assert groups
    assert all(group and group.isdecimal() for group in groups)


def test_impressions_without_their_mapping_table(cases: Path) -> None:
    with pytest.raises(InputError, match="--group-column impression_id"):
        found(cases / "inspect-csv", source="inspect")
    records = found(cases / "inspect-csv", source="inspect", group_column="impression_id")
    assert records[0][0] == "1000"


@pytest.mark.parametrize(("folder", "articles"), [("pmc-cloud", 20), ("pmc-cloud-v10", 1)])
def test_versions_of_articles(cases: Path, folder: str, articles: int) -> None:
    records = found(cases / folder, source="pmc")
    kept = {group: text for group, text in records if text != SUPERSEDED}
    assert len(kept) == articles
    for group, text in kept.items():
        number = max(int(path.name.split(".")[1]) for path in (cases / folder).glob(f"{group}.*"))
        assert f"VERSION{number} " in text


def test_licences_of_articles(cases: Path) -> None:
    records = found(cases / "pmc-cloud", source="pmc", licenses=["CC BY", "CC0"])
    assert {text for _, text in records} == {SUPERSEDED, "under another licence"}
