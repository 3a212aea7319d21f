# SPDX-License-Identifier: Apache-2.0
"""Cleaning: only what is asked for changes, the same way every time, and all of it is counted."""

import random
import re
import time
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bcmb_jax.data.clean import Cleaning, replace_placeholders, unwrap
from bcmb_jax.data.clean.placeholders import PLACEHOLDER
from bcmb_jax.data.ingest.record import Document, Record, Skipped, TokenDocument
from bcmb_jax.errors import InputError

# A megabyte takes about 0.1 s in any step; the square of that time, or of a tenth of it, does not
# fit in, on any machine.
MOST_SECONDS = 5.0

NOTE = """\
Sample Hospital
Name: Test Patient        Unit No: 12345
Admission Date:  1/2/2030       Discharge Date:  1/9/2030
Service: SURGERY

Chief Complaint:
belly pain

History of Present Illness:
The patient is a very patient patient who came in with pain in the
belly that had begun on the evening before, after a large meal, and
which went away when walking. No fever was measured at home. A follow-
up visit was planned for the week after that, but like then, the pre-
and post-meal pain did not let up.
She denies cough, hoarseness and any change of weight.
She denies chills.

PAST MEDICAL HISTORY
Hypertension
1. Gallstones, which had been seen by chance when the kidneys were
looked at two years ago
2. Asthma, well controlled with an inhaler that she seldom has to use
3. Gout
- a list item that is just as long as the lines of the paragraph was
- another one

Pertinent Results:
1/2/2030 10:25PM   GLUCOSE-109* UREA N-25* CREAT-0.3* SODIUM-138
POTASSIUM-3.4 CHLORIDE-105 TOTAL CO2-27 ANION GAP-9
WBC-8.2 RBC-3.60* Hgb-10.5* Hct-32.1* MCV-89 MCH-29.2 MCHC-32.8 RDW-1
Plt Ct-312
test            value     unit      low       high      remark here
sodium          138       mmol/L    133       145       none at all

    an indented block with lines which are about as long as the lines
    of the paragraphs above, such as a letter that was copied

Discharge Instructions:
Take the tablets with water in the morning and do not lie down for at
least half an hour. Call the clinic if the pain comes back, if you have
a fever or if the skin turns yellow.
"""
UNWRAPPED = """\
The patient is a very patient patient who came in with pain in the belly that had begun on the \
evening before, after a large meal, and which went away when walking. No fever was measured at \
home. A follow-up visit was planned for the week after that, but like then, the pre- and post-meal \
pain did not let up.
She denies cough, hoarseness and any change of weight.
She denies chills.
"""


def documents(*texts: str, group: str | None = None) -> list[Record]:
    return [Document(text, group, "notes.csv", i + 2) for i, text in enumerate(texts)]


def outcomes(cleaning: Cleaning, *texts: str) -> list[str]:
    """Each text's new text, or why it was left out."""
    return [
        record.text if isinstance(record, Document) else record.reason
        for record in cleaning.apply(documents(*texts))
    ]


def wrap(text: str, width: int, end: str = "") -> str:
    """Breaks lines where the next word would pass the width, as old terminals did."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines[-1] += end
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def prose(draw: random.Random, words: int) -> str:
    """Lower-case words of 2 to 10 letters, from which no two texts share five in a row."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(draw.choices(letters, k=draw.randint(2, 10))) for _ in range(words))


def test_nothing_happens_unasked() -> None:
    texts = [NOTE, NOTE, "[**Last Name 1**] ___", "x"]
    cleaning = Cleaning()
    assert list(cleaning.apply(documents(*texts))) == documents(*texts)
    assert not cleaning.counts


# --- lines


def test_paragraphs_are_joined_and_all_else_keeps_its_lines() -> None:
    lines = unwrap(NOTE).split("\n")
    start = NOTE.index("The patient is")
    assert UNWRAPPED in unwrap(NOTE)
    assert unwrap(NOTE)[:start] == NOTE[:start]
    table = NOTE[NOTE.index("Pertinent Results") : NOTE.index("Take the tablets")]
    assert table in unwrap(NOTE)
    listed = "when the kidneys were looked at two years ago"
    assert sum(line.startswith("1. ") and line.endswith(listed) for line in lines) == 1
    for line in ("PAST MEDICAL HISTORY", "Hypertension", "3. Gout", "- another one"):
        assert line in lines


@pytest.mark.parametrize("width", [55, 64, 72, 80, 95])
@pytest.mark.parametrize("end", ["", " ", "\r"])
def test_any_width_is_undone(width: int, end: str) -> None:
    draw = random.Random(width)
    paragraphs = [prose(draw, 80) + "." for _ in range(5)]
    wrapped = "\n\n".join(f"Heading {width}:\n{wrap(text, width, end)}" for text in paragraphs)
    assert unwrap(wrapped) == "\n\n".join(f"Heading {width}:\n{text}" for text in paragraphs)
    assert unwrap(unwrap(wrapped)) == unwrap(wrapped)


def test_what_was_not_wrapped_is_left_alone() -> None:
    draw = random.Random(0)
    sentences = [prose(draw, draw.randint(6, 18)) + "." for _ in range(60)]
    assert unwrap("\n".join(sentences)) == "\n".join(sentences)
    long = [prose(draw, 100) for _ in range(10)]
    assert unwrap("\n".join(long)) == "\n".join(long)
    verses = wrap(prose(draw, 60), 40)
    assert unwrap(verses) == verses
    assert unwrap(wrap(prose(draw, 16), 72)).count("\n") == 1  # one break may be chance


def test_lines_may_hold_placeholders() -> None:
    draw = random.Random(1)
    texts, wrapped = [], []
    for name, placeholder in [
        ("Ng", "___"),
        ("Hanrahan", "___"),
        ("Smythe-Hanrahan", "___"),
        ("Ng", "[**Last Name (Something) 12**]"),
        ("Smythe-Hanrahan", "[**Last Name 1**]"),
    ]:
        words = prose(draw, 90).split()
        words[::15] = [name] * 6
        wrapped.append(wrap(" ".join(words), 70).replace(name, placeholder))
        texts.append(" ".join(wrapped[-1].split()))
    assert unwrap("\n\n".join(wrapped)) == "\n\n".join(texts)


def test_unwrap_keeps_every_character() -> None:
    draw = random.Random(2)
    pieces = [
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        "-",
        "re-",
        ":",
        "1. ",
        "A",
        "b.",
        "___",
        "[**x**]",
        "é",
    ]
    for _ in range(300):
        often = draw.choice((0.05, 0.3))
        words = [
            draw.choice(pieces) if draw.random() < often else prose(draw, 1) for _ in range(120)
        ]
        text = wrap(" ".join(words), 70) if draw.random() < 0.5 else " ".join(words)
        assert "".join(unwrap(text).split()) == "".join(text.split())
        assert len(unwrap(text)) <= len(text)


# --- placeholders

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
    """What stands for each placeholder; fails if anything else changed."""
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


def test_dates_of_a_patient_move_together() -> None:
    draw = random.Random(3)
    for patient in range(40):
        days = [date.fromordinal(draw.randint(760_000, 800_000)) for _ in range(20)]  # 2081 to 2191
        notes = [f"[**{d.year}-{d.month}-{d.day}**]" for d in days]
        moved = [parse_date(replace_placeholders(note, 0, str(patient))) for note in notes]
        shifts = {new - old for new, old in zip(moved, days, strict=True)}
        assert len(shifts) == 1
        assert shifts.pop().days % 7 == 0, "weekdays are kept"
        assert all(1900 < d.year < 2090 for d in moved)


def test_a_date_without_its_year_is_the_same_day_as_with_it() -> None:
    for patient in range(40):
        for year, day in (("2151", "7-16"), ("2151", "3-5"), ("2152", "2-29")):
            labels = (f"[**{year}-{day}**]", f"[**{day}**]")
            whole, part = (replace_placeholders(text, 0, str(patient)) for text in labels)
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
        assert name.split()[-1] == last and len(name.split()) == 2
        assert doctor.split()[-1] == sender
        assert re.fullmatch(r"\d{7}", record) and re.fullmatch(r"\d", weeks)
        people.add((name, record, born))
        later = replace_placeholders(BLANKS + "More.\n", 0, str(patient))
        again = surrogates_of(BLANKS + "More.\n", later)
        assert (again[0], again[1], again[4]) == (name, record, dates[2])
        assert again[2] != dates[0], "another note is another visit"
    assert len(people) == 30


def test_documents_without_a_group_are_patients_of_their_own() -> None:
    texts = ["[**Known lastname 1**] [**Known firstname 2**]"] * 20
    assert len(set(outcomes(Cleaning(placeholders="surrogate"), *texts))) > 15
    grouped = Cleaning(placeholders="surrogate").apply(documents(*texts, group="7"))
    assert len({record.text for record in grouped if isinstance(record, Document)}) == 1
    other = Cleaning(placeholders="surrogate", seed=1)
    assert outcomes(other, *texts) != outcomes(Cleaning(placeholders="surrogate"), *texts)


@pytest.mark.parametrize(
    "text",
    ["", "[**", "[**open", "[**a\n\n", "____", "_" * 70, "__", "**]", "[** [x] **]", "[*a*]"]
    + [f"[**{'word ' * 100}**]"],
)
def test_what_is_no_placeholder_stays(text: str) -> None:
    assert replace_placeholders(text, 0, "7") == text


def test_the_inner_of_nested_placeholders_is_replaced() -> None:
    inner = replace_placeholders("[**Name 2**]", 0, "7")
    nested = replace_placeholders("[**Name [**Name 2**] 1**]", 0, "7")
    assert nested == f"[**Name {inner} 1**]"


# --- duplicates


def change(text: str, draw: random.Random, count: int) -> str:
    """The text with that many words replaced, far from each other."""
    words = text.split(" ")
    for at in range(20, 20 + count * (len(words) // (count + 1)), len(words) // (count + 1)):
        words[at] = prose(draw, 1)
    return " ".join(words)


def test_exact_duplicates_are_left_out_in_reading_order() -> None:
    texts = ["a b", "c", " a\n\tb ", "A b", "c", "seen by [**Name 1**]", "seen by ___", "ab"]
    cleaning = Cleaning(exact_duplicates=True)
    records = list(cleaning.apply(documents(*texts)))
    repeats = [
        r.line for r in records if r == Skipped("notes.csv", r.line, "repeats an earlier text")
    ]
    assert repeats == [4, 6, 8]
    kept = [record for record in records if isinstance(record, Document)]
    assert kept == [d for d in documents(*texts) if d.line not in repeats]


@pytest.mark.parametrize("threshold", [0.6, 0.8, 0.9])
def test_near_duplicates_are_those_above_the_threshold(threshold: float) -> None:
    pytest.importorskip("datasketch")
    # n words changed of 1,200 lose 5 n of the 1,196 elements: J = (1196 - 5 n) / (1196 + 5 n).
    draw = random.Random(4)
    margin = 3 * (threshold * (1 - threshold) / 128) ** 0.5  # three standard errors
    above = int(1196 * (1 - threshold - margin) / (1 + threshold + margin) / 5)
    below = int(1196 * (1 - threshold + margin) / (1 + threshold - margin) / 5) + 1
    notes = [prose(draw, 1200) for _ in range(25)]
    near = [change(note, draw, above) for note in notes]
    far = [change(note, draw, below) for note in notes]
    found = outcomes(Cleaning(near_duplicates=threshold), *notes, *near, *far)
    assert found[:25] == notes
    assert set(found[25:50]) == {f"nearly repeats an earlier text (Jaccard ≥ {threshold})"}
    assert found[50:] == far


def test_different_notes_of_one_template_stay() -> None:
    pytest.importorskip("datasketch")
    draw = random.Random(5)
    frame = [prose(draw, 24) for _ in range(8)]
    # Of 24 + 3 words a section, 20 of 27 elements are the template's own: J is 20 / 34. Of single
    # words, 24 / 30 are the same.
    notes = [" ".join(f"{part} {prose(draw, 3)}" for part in frame) for _ in range(60)]
    again = [re.sub(r"\w+$", "otherwise", note) for note in notes]
    shouted = notes[0].upper() + "!"
    found = outcomes(Cleaning(near_duplicates=0.8), *notes, *again, shouted, notes[1])
    assert found[:60] == notes
    assert len(set(found[60:121])) == 1 and found[60].startswith("nearly repeats")
    assert found[121] == "repeats an earlier text"


def test_very_short_texts_are_near_only_if_their_words_are_the_same() -> None:
    pytest.importorskip("datasketch")
    found = outcomes(Cleaning(near_duplicates=0.5), "No fever.", "no fever", "No chills.", "?", "!")
    assert found[0] == "No fever." and found[1].startswith("nearly") and found[2] == "No chills."
    assert found[3] == "?" and found[4].startswith("nearly")


def test_the_index_finds_what_a_plain_comparison_finds() -> None:
    from bcmb_jax.data.clean.bands import Index

    draw = np.random.default_rng(6)
    index, seen = Index(0.8), np.zeros((0, 128), np.uint8)
    # Of four values a place, so that many share a band, and chains are long.
    index.add(draw.integers(0, 4, (900, 128), dtype=np.uint8))
    wrong, hits = 0, 0
    for i in range(2000):  # grows twice
        seen = index.signatures
        signature = draw.integers(0, 4, 128, dtype=np.uint8)
        if i % 2:
            source = seen[draw.integers(len(seen))]
            signature = np.where(draw.random(128) < draw.uniform(0.5, 1), source, signature)
        expected = bool(
            ((seen == signature).sum(1) >= 103).any()
        )  # 0.8 * 128, by chance a bit more
        hits += expected
        wrong += index.find(signature) != expected
        index.add(signature[None])
    assert np.array_equal(index.signatures[-1], signature)
    assert len(index.signatures) == 2900
    assert hits > 300
    assert wrong < 0.02 * hits, "18 bands of 7 find 98.6 % of those right at 0.8, more above"


def test_many_added_at_once_are_found_as_if_added_singly() -> None:
    from bcmb_jax.data.clean.bands import Index

    draw = np.random.default_rng(7)
    signatures = draw.integers(0, 4, (3000, 128), dtype=np.uint8)  # many share a band
    once, singly = Index(0.5), Index(0.5)
    once.add(signatures[:1500])
    once.add(signatures[1500:])
    for signature in signatures:
        singly.add(signature[None])
    queries = np.where(draw.random((200, 128)) < 0.6, signatures[:200], 5).astype(np.uint8)
    found = [index.find(query) for index in (once, singly) for query in queries]
    assert found[:200] == found[200:]
    assert 0 < sum(found[:200]) < 200


def test_of_a_crowd_in_one_band_the_latest_256_are_compared() -> None:
    from bcmb_jax.data.clean.bands import Index

    index = Index(0.8)  # 18 bands of 7
    crowd = np.random.default_rng(8).integers(0, 256, (5000, 128), dtype=np.uint8)
    crowd[:, 7:14] = 1
    index.add(crowd)

    def only_by_the_second_band(number: int) -> bool:
        query = crowd[number].copy()
        query[[7 * band for band in range(18) if band != 1]] ^= 1
        return index.find(query)

    assert all(only_by_the_second_band(5000 - i) for i in (1, 2, 100, 200))
    assert not any(only_by_the_second_band(5000 - i) for i in (400, 2000))
    assert all(index.find(signature) for signature in crowd[::500])
    assert not index.find(np.where(crowd[0] == 1, crowd[0], 255).astype(np.uint8))


def fingerprints(tmp_path: Path, name: str, cleaning: Cleaning, *texts: str) -> Path:
    folder = tmp_path / name
    folder.mkdir()
    outcomes(cleaning, *texts)
    cleaning.save(folder)
    return folder


def test_sources_are_compared_with_earlier_ones(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    draw = random.Random(9)
    a, b, c = (prose(draw, 300) for _ in range(3))
    one = fingerprints(tmp_path, "one", Cleaning(near_duplicates=0.8), a, a)
    second = Cleaning(near_duplicates=0.8, against=[one])
    two = fingerprints(tmp_path, "two", second, b)
    both = Cleaning(near_duplicates=0.8, against=[one, two])
    found = outcomes(both, change(a, draw, 3), b, c)
    assert [text[:6] for text in found[:2]] == ["nearly", "repeat"] and found[2] == c
    with np.load(two / "fingerprints.npz") as arrays:
        assert {name: array.shape for name, array in arrays.items()} == {
            "digests": (1, 16),  # its own texts only
            "signatures": (1, 128),
            "probe": (128,),
        }
    assert both.options()["not_in"] == ["one", "two"]
    exact = Cleaning(exact_duplicates=True, against=[one, two])
    assert outcomes(exact, a, b, c) == ["repeats an earlier text"] * 2 + [c]
    again = fingerprints(tmp_path, "again", Cleaning(near_duplicates=0.8), a, a)
    files = [folder / "fingerprints.npz" for folder in (one, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_folders_that_cannot_be_compared_with_are_named(tmp_path: Path) -> None:
    exact = fingerprints(tmp_path, "exact", Cleaning(exact_duplicates=True), "a")
    none = fingerprints(tmp_path, "none", Cleaning(), "a")
    assert not list(none.iterdir())

    def refused(message: str, *against: Path, near: float | None = None) -> None:
        with pytest.raises(InputError, match=message):
            Cleaning(exact_duplicates=True, near_duplicates=near, against=against)

    refused(r"none has no fingerprints\.npz to compare with: prepare it again with", none)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    content = (exact / "fingerprints.npz").read_bytes()
    for wrong in (content[:-30], b"", b"\x80\x04"):
        (damaged / "fingerprints.npz").write_bytes(wrong)
        refused(r"fingerprints\.npz is damaged", damaged)
    pickled = np.array([{}])
    for digests in (
        np.zeros((3, 15), np.uint8),
        np.zeros((3, 16), np.int64),
        np.zeros(16),
        pickled,
    ):
        np.savez(damaged / "fingerprints.npz", digests=digests)
        refused("is damaged", damaged)
    pytest.importorskip("datasketch")
    refused("has no signatures: prepare .*exact again with --near-duplicates", exact, near=0.8)
    near = fingerprints(tmp_path, "near", Cleaning(near_duplicates=0.8), "a")
    arrays = dict(np.load(near / "fingerprints.npz"))
    arrays["probe"] = arrays["probe"] ^ 1
    np.savez(near / "fingerprints.npz", **arrays)
    refused("another version", near, near=0.8)


def test_near_duplicates_without_datasketch_say_what_to_install(monkeypatch: Any) -> None:
    monkeypatch.setitem(__import__("sys").modules, "datasketch", None)
    with pytest.raises(InputError, match=r"pip install 'bcmb-jax\[dedup\]'"):
        Cleaning(near_duplicates=0.8)
    assert outcomes(Cleaning(exact_duplicates=True), "a", "a")[1] == "repeats an earlier text"


# --- all of it


def test_all_of_it_is_counted_and_records_pass_in_order() -> None:
    skipped = Skipped("notes.csv", 9, "empty")
    tokens = TokenDocument(np.array([1, 2, 3]), "7", "shard", 1)
    cleaning = Cleaning(True, "surrogate", min_characters=4, exact_duplicates=True)
    texts = [NOTE, "a b\nc", "a b\nc d", NOTE, "Mr. ___", "[**1**]"]
    records = [skipped, *documents(*texts, group="7"), tokens]
    found = list(cleaning.apply(iter(records)))
    assert found[0] is skipped and found[-1] is tokens
    reasons = [record.reason if isinstance(record, Skipped) else "" for record in found[1:-1]]
    short = "shorter than 4 characters"
    assert reasons == ["", short, "", "repeats an earlier text", "", ""]
    assert cleaning.counts == {
        "wrapped lines joined": 1,
        "placeholders replaced by surrogates": 2,
        "came as tokens, not cleaned": 1,
    }
    changed = [record for record in found if isinstance(record, Document)]
    assert {(d.group, d.file) for d in changed} == {("7", "notes.csv")}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"placeholders": "drop"}, "--placeholders drop: choose keep or surrogate"),
        ({"min_characters": -1}, "--min-characters -1"),
        ({"near_duplicates": 0.3}, "--near-duplicates 0.3: a similarity of 0.5 to 1"),
        ({"near_duplicates": float("nan")}, "--near-duplicates nan"),
        ({"against": ["a"]}, "--not-in needs --exact-duplicates or --near-duplicates"),
    ],
)
def test_wrong_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Cleaning(**options)


MEGABYTES = {
    "one line": "word " * 200_000,
    "one word": "a" * 1_000_000,
    "lines": "a line of some words\n" * 50_000,
    "blank": "x" + "\n" * 1_000_000,
    "spaces": "x" + " " * 1_000_000 + "x",
    "open": "[**" * 300_000,
    "open lines": "[** and more words to fill the line up to its end\n" * 20_000,
    "stars": "[" + "*" * 1_000_000,
    "blanks": "some ___ words to fill " * 45_000,
    "underscores": "_" * 1_000_000,
    "capitals": "A" * 1_000_000 + ":",
    "numbers": "1" * 1_000_000,
    "hyphens": "-\n" * 500_000,
    "placeholders": "[**2101-3-4**] " * 60_000,
}


@pytest.mark.parametrize("name", MEGABYTES)
def test_a_megabyte_of_anything_takes_linear_time(name: str) -> None:
    text = MEGABYTES[name]
    steps: Sequence[Callable[[], Any]] = (
        lambda: unwrap(text),
        lambda: replace_placeholders(text, 0, "7"),
        lambda: outcomes(Cleaning(exact_duplicates=True, min_characters=1), text),
    )
    for step in steps:
        start = time.process_time()
        step()
        assert time.process_time() - start < MOST_SECONDS
