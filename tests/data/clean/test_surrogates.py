# SPDX-License-Identifier: Apache-2.0
"""Placeholders are replaced the same way every time, consistently for a patient."""

import random
import re
from datetime import date, datetime

import pytest

from bcmb_jax.data.clean import Cleaner, Cleaning, replace_placeholders
from bcmb_jax.data.clean.placeholders import PLACEHOLDER
from bcmb_jax.data.ingest.record import Document
from tests.fixtures.notes import documents, outcomes

LABELLED = """\
Admission Date:  [**2151-7-16**]       Discharge Date:  [**2151-8-4**]
Name: [**Known lastname 1234**], [**Known firstname 55**]; Dr. [**Last Name (STitle) 9**]
at [**Hospital1 18**], phone [**Telephone/Fax (1) 5**], [**Age over 90 **] years old, [**7-20**]
[**Hospital1
18**] [**3-/2101**] [**2101**] [**Month (only) 3**] [**Unheard Of 12**] [****] [**2101-2-30**]
"""


def parse_date(text: str) -> date:
    for style in ("%m/%d/%Y", "%Y-%m-%d", "%B %d, %Y"):
        try:
            return datetime.strptime(text, style).date()
        except ValueError:
            continue
    raise ValueError("no date")


def surrogates_of(text: str, replaced: str) -> list[str]:
    """Return the text in place of each placeholder; fails if anything else changed."""
    outside = re.split(PLACEHOLDER.pattern.replace("?P<label>", "?:"), text)
    match = re.fullmatch("(.+)".join(map(re.escape, outside)), replaced, re.DOTALL)
    assert match
    return list(match.groups())


def test_surrogates_are_a_function_of_seed_patient_and_placeholder() -> None:
    first = replace_placeholders(LABELLED, 0, "patient 1")
    assert first == replace_placeholders(LABELLED, 0, "patient 1")
    assert not PLACEHOLDER.search(first)
    others = [replace_placeholders(LABELLED, 0, f"patient {i}") for i in range(2, 50)]
    others += [replace_placeholders(LABELLED, 1, "patient 1")]
    assert len({first, *others}) == 50
    found = surrogates_of(LABELLED, first)
    assert found[5] == found[9], "a line break in a placeholder is no more than a space"
    names = [surrogates_of(LABELLED, other)[2] for other in others]
    assert len(set(names)) > 30


def test_a_name_stays_the_same_in_all_notes_of_a_patient() -> None:
    for name in ("[**Known lastname 1234**]", "[**Telephone/Fax (1) 5**]", "[**Hospital1 18**]"):
        alone = replace_placeholders(name, 0, "7")
        assert replace_placeholders(f"Seen with {name}.", 0, "7") == f"Seen with {alone}."
        assert replace_placeholders(name.replace("**]", "1**]"), 0, "7") != alone


@pytest.mark.parametrize(
    ("label", "pattern"),
    [
        ("Last Name (NamePattern1) 12", r"[A-Z]\w+"),
        ("Initial (NamePattern4) 1", r"[A-Z]{2}"),
        ("Female First Name (un) 3", r"[A-Z]\w+"),
        ("Dictator Info 3", r"[A-Z]\w+ [A-Z]\w+"),
        ("Age over 90 12", r"9\d"),
        ("Telephone/Fax (3) 12", r"\(?\d{3}\)?[ .-]555[.-]\d{4}"),
        ("Hospital Ward Name 12", r"[A-Z]\w+ \d"),
        ("Hospital6 29", r"[A-Z]\w+ [A-Z]\w+ (Hospital|Center)|[A-Z]\w+ \w+ Hospital"),
        ("Numeric Identifier 1234", r"\d+"),
        ("Medical Record Number 99", r"\d{7}"),
        ("Social Security Number 5", r"9\d\d-\d\d-\d{4}"),
        ("Street Address(2) 4", r"\d+ [A-Z]\w+ [A-Z]\w+"),
        ("Year (4 digits) 12", r"(19|20)\d\d"),
        ("URL 3", r"www\.\w+\.example\.org"),
        ("12345", r"\d+"),
    ],
)
def test_labels_decide_the_kind(label: str, pattern: str) -> None:
    for patient in range(20):
        found = replace_placeholders(f"[**{label}**]", 0, str(patient))
        assert re.fullmatch(pattern, found), found


@pytest.mark.parametrize("date_shift", ["weekday", "season"])
def test_dates_of_a_patient_move_together(date_shift: str) -> None:
    draw = random.Random(3)
    all_shifts = set()
    for patient in map(str, range(300)):
        days = [date.fromordinal(draw.randint(760_000, 800_000)) for _ in range(5)]  # 2081 to 2191
        notes = [f"[**{d.year}-{d.month}-{d.day}**]" for d in days]
        replaced = [replace_placeholders(n, 0, patient, date_shift=date_shift) for n in notes]
        moved = [parse_date(note) for note in replaced]
        shifts = {new - old for new, old in zip(moved, days, strict=True)}
        assert len(shifts) == 1
        all_shifts |= shifts
        assert all(1900 < d.year < 2090 for d in moved)
    assert len(all_shifts) > 230, "of 300 draws from about a thousand"
    if date_shift == "weekday":
        assert all(shift.days % 7 == 0 for shift in all_shifts)
    else:
        days_off = [(shift.days + 22) % 365.2425 for shift in all_shifts]
        assert max(days_off) < 44, "within three weeks of the day of the year"
        assert len({shift.days % 7 for shift in all_shifts}) == 7


@pytest.mark.parametrize("date_shift", ["weekday", "season"])
def test_a_date_without_its_year_is_the_same_day_as_with_it(date_shift: str) -> None:
    for patient in map(str, range(40)):
        for year, day in (("2151", "7-16"), ("2151", "3-5"), ("2152", "3-5"), ("2152", "2-29")):
            note = f"[**{year}-{day}**] or [**{day}**]"
            replaced = replace_placeholders(note, 0, patient, date_shift=date_shift)
            whole, part = replaced.split(" or ")
            assert part in whole


BLANKS = """\
Name:  ___                     Unit No:   ___
Admission Date:  ___              Discharge Date:   ___
Date of Birth:  ___             Sex:   F
Attending: ___.
Ms. ___ is a ___ year old woman sent by Dr. ___ with ___ weeks of pain, and ___ rest.
"""


def test_blanks_are_filled_by_what_is_around_them() -> None:
    people = set()
    for patient in range(30):
        filled = replace_placeholders(BLANKS, 0, str(patient))
        name, record, *dates, doctor, last, age, sender, weeks, _ = surrogates_of(BLANKS, filled)
        admitted, discharged, born = map(parse_date, dates)
        assert admitted < discharged
        assert int(age) == (admitted - born).days // 365.2425
        assert name.split()[-1] == last
        assert len(name.split()) == 2
        assert doctor.split()[-1] == sender
        assert re.fullmatch(r"\d{7}", record)
        assert re.fullmatch(r"\d", weeks)
        people.add((name, record, born))
        later = replace_placeholders(BLANKS + "More.\n", 0, str(patient))
        again = surrogates_of(BLANKS + "More.\n", later)
        assert (again[0], again[1], again[4]) == (name, record, dates[2])
        assert again[2] != dates[0], "another note is another visit"
    assert len(people) == 30


def test_documents_without_a_group_are_patients_of_their_own() -> None:
    texts = ["[**Known lastname 1**] [**Known firstname 2**]"] * 20
    assert len(set(outcomes(Cleaning(placeholders="surrogate"), *texts))) > 15
    grouped = Cleaner(Cleaning(placeholders="surrogate")).apply(documents(*texts, group="7"))
    assert len({record.text for record in grouped if isinstance(record, Document)}) == 1
    other = Cleaning(placeholders="surrogate", seed=1)
    assert outcomes(other, *texts) != outcomes(Cleaning(placeholders="surrogate"), *texts)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[**",
        "[**open",
        "[**a\n\n",
        "____",
        "_" * 70,
        "__",
        "**]",
        "[** [x] **]",
        "[*a*]",
        f"[**{'word ' * 100}**]",
    ],
)
def test_what_is_no_placeholder_stays(text: str) -> None:
    assert replace_placeholders(text, 0, "7") == text


def test_the_inner_of_nested_placeholders_is_replaced() -> None:
    inner = replace_placeholders("[**Name 2**]", 0, "7")
    nested = replace_placeholders("[**Name [**Name 2**] 1**]", 0, "7")
    assert nested == f"[**Name {inner} 1**]"
