# SPDX-License-Identifier: Apache-2.0
"""MIMIC-IV's `___`: what it stood for, guessed from the words around it."""

import re
from datetime import date, timedelta

from bcmb_jax.data.clean.surrogates import Surrogates

_REACH = 48  # characters to either side that are looked at
_AFTER = re.compile(
    r"""\s?(?:
    (?P<age>-?\s?(?:years?|yrs?)[ -]old | y\.?/?o\b | (?:yo)?[MF]\b(?!/))
    | (?P<count>-?\s?(?:day|week|month|hour|hr|min|year|time|pack|drink|beer|cig|tab|mg|mL|cm)s?\b)
    | (?P<date>\d{1,2}:\d\d | at\s\d)
    )""",
    re.VERBOSE,
)
_BEFORE = {
    phrase.strip(): kind
    for kind, phrases in {
        "own": "name:; patient:",
        "attending": "attending:; provider:; surgeon:; pcp:; author:",
        "surname": "mr; mrs; ms; miss",
        "doctor": "dr; drs; doctor; nurse",
        "relative": "wife; husband; daughter; son; sister; brother; niece; nephew; friend",
        "birth": "date of birth; dob; born; born on",
        "admission": "admission date; admit date; date of admission; admitted; admitted on",
        "discharge": "discharge date; date of discharge; discharged; discharged on",
        "record": "unit no; mrn; medical record; medical record no; medical record number",
        "phone": "phone; telephone; tel; fax; cell; pager; call; phone number",
        "hospital": "facility; hospital; osh; at; from; transferred to",
        "town": "lives in; living in; resident of",
        "past": "in; since",
        "date": "date; dates; dated; date/time; on; signed; performed",
    }.items()
    for phrase in phrases.split(";")
}
_LONGEST = 3  # words of a phrase


def guess_kind(text: str, start: int, end: int) -> str:
    """What `text[start:end]` may have been: "age", "count" or one of the kinds above, or "last"."""
    if match := _AFTER.match(text, end, end + _REACH):
        return match.lastgroup or "last"
    words = text[max(0, start - _REACH) : start].lower().split()[-_LONGEST:]
    for first in range(len(words)):  # the longest phrase is the most telling
        phrase = " ".join(words[first:]).lstrip("(")
        kind = _BEFORE.get(phrase) or _BEFORE.get(phrase.rstrip(".:,# "))
        if kind:
            return kind
    return "last"


def fill_blank(kind: str, surrogates: Surrogates, note: str, number: int) -> str:
    """What stands for the `number`-th blank of a note; `note` is anything that tells it apart."""
    born = date(1925, 1, 1) + timedelta(surrogates.number("born", 65 * 365))
    admitted = date(2008, 1, 1) + timedelta(surrogates.number(f"admitted {note}", 12 * 365))
    stay = 1 + surrogates.number(f"stay {note}", 14)
    place = f"{note} {number}"
    match kind:
        case "own":
            return f"{surrogates.make('first', 'own')} {surrogates.make('last', 'own')}"
        case "surname":
            return surrogates.make("last", "own")
        case "record":
            return surrogates.make("record", "own")
        case "birth":
            return surrogates.dates.format("date", born)
        case "admission":
            return surrogates.dates.format("date", admitted)
        case "discharge":
            return surrogates.dates.format("date", admitted + timedelta(stay))
        case "date":
            during = timedelta(surrogates.number(f"date {place}", stay + 1))
            return surrogates.dates.format("date", admitted + during)
        case "past":
            before = timedelta(30 + surrogates.number(f"past {place}", 10 * 365))
            return surrogates.dates.format("month and year", admitted - before)
        case "age":
            birthday_to_come = (admitted.month, admitted.day) < (born.month, born.day)
            return str(admitted.year - born.year - birthday_to_come)
        case "doctor":  # one for a note, as most of its mentions mean one
            return surrogates.make("last", f"doctor {note}")
        case "attending":
            return f"{surrogates.make('first', place)} {surrogates.make('last', f'doctor {note}')}"
        case "relative":
            return surrogates.make("first", f"relative {place}")
        case _:
            return surrogates.make(kind, place)
