# SPDX-License-Identifier: Apache-2.0
"""Placeholders of de-identification: MIMIC-III's `[**Last Name 12**]` and MIMIC-IV's `___`."""

import hashlib
import re
from datetime import date, timedelta
from functools import lru_cache

from bcmb_jax.data.clean.surrogates import DATA, Surrogates
from bcmb_jax.data.secret import keyed_hash

# No placeholder holds another or much text: an unclosed one swallows nothing, and costs no time.
PLACEHOLDER = re.compile(r"\[\*\*(?P<label>[^\[\]]{0,200}?)\*\*\]|(?<!_)___(?!_)")

_DATES = [
    re.compile(pattern)
    for pattern in (
        r"(?P<year>\d{4})[-/](?P<month>\d{1,2})[-/](?P<day>\d{1,2})",
        r"(?P<month>\d{1,2})[-/](?P<day>\d{1,2})",
        r"(?P<month>\d{1,2})-?/(?P<year>\d{4})",
        r"(?P<year>\d{4})[-/](?P<month>\d{1,2})",
        r"(?P<year>\d{4})",
    )
]
_DATED = re.compile(r"\[\*\*\s*(\d{4})[-/]\d")
_LABELS = [(re.compile(pattern), str(kind)) for pattern, kind in DATA["labels"].items()]
_PHRASES = {phrase: str(kind) for kind, phrases in DATA["phrases"].items() for phrase in phrases}
_LONGEST_PHRASE = 3  # words
_REACH = 48  # characters to either side of `___` that are looked at
_AFTER = re.compile(
    r"""\s?(?:
    (?P<age>-?\s?(?:years?|yrs?)[ -]old | y\.?/?o\b | (?:yo)?[MF]\b(?!/))
    | (?P<count>-?\s?(?:day|week|month|hour|hr|min|year|time|pack|drink|beer|cig|tab|mg|mL|cm)s?\b)
    | (?P<date>\d{1,2}:\d\d | at\s\d)
    )""",
    re.VERBOSE,
)


def replace_placeholders(
    text: str, seed: int, group: str, *, secret: bytes = b"", date_shift: str = "weekday"
) -> str:
    """Replace every placeholder by a surrogate; the text around them stays as it is.

    Names and numbers that no placeholder stands for stay too: this does not de-identify a text.

    MIMIC-III's label and the patient (`group`) decide the surrogate, so a name stays the same in
    all of a patient's notes; the patient's dates all move by one time, so intervals stay. An
    unknown label becomes a last name. `___` has no label: its kind is guessed from the words around
    it. A patient's own name, record number and birth stay the same in all notes; other surrogates,
    dates too, differ by note and position, but an admission comes before its discharge and an age
    fits the birth.

    Args:
      seed: chooses the surrogates where there is no secret; then whoever knows the seed can find
        the patient's id by trying all.
      secret: chooses the surrogates, whatever the seed, so they are the same in all sources.
      date_shift: one of `DATE_SHIFTS`, what the dates keep.
    """
    if not PLACEHOLDER.search(text):
        return text
    start = f"{seed}\0{group}\0".encode("utf-8", "surrogatepass")
    start = keyed_hash(secret, "surrogates", group) if secret else start
    surrogates = Surrogates(start, date_shift)
    dated = _DATED.search(text)
    year = int(dated[1]) if dated else 2105
    note = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    parts, end = [], 0
    for number, match in enumerate(PLACEHOLDER.finditer(text)):
        label = match["label"]
        parts.append(text[end : match.start()])
        if label is None:
            kind = _guess_kind(text, *match.span())
            parts.append(_fill_blank(kind, surrogates, note, number))
        else:
            parts.append(_replace_label(" ".join(label.split()), surrogates, year))
        end = match.end()
    return "".join([*parts, text[end:]])


def _replace_label(label: str, surrogates: Surrogates, year_of_note: int) -> str:
    for pattern in _DATES:
        if match := pattern.fullmatch(label):
            parts = {name: int(value) for name, value in match.groupdict().items()}
            moved = surrogates.shift_date(**parts, year_of_note=year_of_note)
            return moved or surrogates.make("date", label)
    return surrogates.make(_kind_of(re.sub(r"\d+$", "", label.lower()) or label), label)


@lru_cache(maxsize=10_000)
def _kind_of(label: str) -> str:
    return next((kind for pattern, kind in _LABELS if pattern.search(label)), "last")


def _guess_kind(text: str, start: int, end: int) -> str:
    """Return the kind of what `text[start:end]` may have been; "last" (name) if nothing tells."""
    if match := _AFTER.match(text, end, end + _REACH):
        return match.lastgroup or "last"
    words = text[max(0, start - _REACH) : start].lower().split()[-_LONGEST_PHRASE:]
    for first in range(len(words)):  # the longest phrase is the most telling
        phrase = " ".join(words[first:]).lstrip("(")
        kind = _PHRASES.get(phrase) or _PHRASES.get(phrase.rstrip(".:,# "))
        if kind:
            return kind
    return "last"


def _fill_blank(kind: str, surrogates: Surrogates, note: str, number: int) -> str:
    """Return a surrogate for the `number`-th `___` of a note, `note` being a hash of its text."""
    born = date(1925, 1, 1) + timedelta(surrogates.number("born", 65 * 365))
    admitted = date(2008, 1, 1) + timedelta(surrogates.number(f"admitted {note}", 12 * 365))
    stay = 1 + surrogates.number(f"stay {note}", 14)
    position = f"{note} {number}"
    during = timedelta(surrogates.number(f"date {position}", stay + 1))
    days = {"birth": born, "admission": admitted, "discharge": admitted + timedelta(stay)}
    days["date"] = admitted + during
    if kind in days:
        return surrogates.format_date("date", days[kind])
    if kind == "past":
        before = timedelta(30 + surrogates.number(f"past {position}", 10 * 365))
        return surrogates.format_date("month and year", admitted - before)
    if kind == "age":
        birthday_to_come = (admitted.month, admitted.day) < (born.month, born.day)
        return str(admitted.year - born.year - birthday_to_come)
    doctor = ("last", f"doctor {note}")  # one a note, as most mentions mean the same
    if kind == "own":
        return f"{surrogates.make('first', 'own')} {surrogates.make('last', 'own')}"
    if kind == "attending":
        return f"{surrogates.make('first', position)} {surrogates.make(*doctor)}"
    others = {"surname": ("last", "own"), "record": ("record", "own"), "doctor": doctor}
    others["relative"] = ("first", f"relative {position}")
    return surrogates.make(*others.get(kind, (kind, position)))
