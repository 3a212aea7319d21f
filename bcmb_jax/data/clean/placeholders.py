# SPDX-License-Identifier: Apache-2.0
"""What de-identification left behind: MIMIC-III's `[**Last Name 12**]` and MIMIC-IV's `___`."""

import hashlib
import re
from functools import lru_cache

from bcmb_jax.data.clean.blanks import fill_blank, guess_kind
from bcmb_jax.data.clean.surrogates import Surrogates

# None holds another or much text, so that one without an end swallows nothing, and costs no time.
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
_KINDS = [  # the first that is found in a label
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"age over", "old age"),
        (r"holiday", "holiday"),
        (r"range", "dates"),
        (r"day.*year|year.*day", "date"),
        (r"month.*year|year.*month", "month and year"),
        (r"month.*day|day.*month", "day"),
        (r"month", "month"),
        (r"year", "year"),
        (r"\bdate", "date"),
        (r"phone|fax", "phone"),
        (r"pager", "pager"),
        (r"\burl|web", "url"),
        (r"e-?mail", "email"),
        (r"social security", "social security"),
        (r"medical record|unit number", "record"),
        (r"number|identifier|\bbox\b|^[^a-z]+$", "digits"),
        (r"street|address|apartment", "street"),
        (r"\bstate\b", "state"),
        (r"\bzip", "zip"),
        (r"country", "country"),
        (r"university|college|school", "university"),
        (r"company|employer", "company"),
        (r"ward|unit", "ward"),
        (r"hospital|clinic|facility", "hospital"),
        (r"location|city|town", "town"),
        (r"initial", "initials"),
        (r"female", "female"),
        (r"\bmale", "male"),
        (r"first ?name|\(ni\)|\(nameis\)", "first"),
        (r"\binfo\b", "full"),
        (r"", "last"),
    )
]


def replace_placeholders(text: str, seed: int, group: str) -> str:
    """Replaces every placeholder; what is outside of them stays as it is.

    MIMIC-III's label and the patient (`group`) decide what stands for it, so a name stays the same
    in all of a patient's notes; their dates all move by one time, so intervals stay. An unknown
    label becomes a last name. `___` says nothing: its kind is guessed from the words around it. A
    patient's own name, record number and birth stay the same in all notes; the rest, dates too,
    differs by note and place, but for an admission before its discharge and an age that fits.
    """
    if not PLACEHOLDER.search(text):
        return text
    surrogates = Surrogates(seed, group)
    note = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
    parts, end = [], 0
    for number, match in enumerate(PLACEHOLDER.finditer(text)):
        label = match["label"]
        parts.append(text[end : match.start()])
        if label is None:
            kind = guess_kind(text, *match.span())
            parts.append(fill_blank(kind, surrogates, note, number))
        else:
            parts.append(_replace_label(" ".join(label.split()), surrogates))
        end = match.end()
    return "".join([*parts, text[end:]])


def _replace_label(label: str, surrogates: Surrogates) -> str:
    for pattern in _DATES:
        if match := pattern.fullmatch(label):
            parts = {name: int(value) for name, value in match.groupdict().items()}
            return surrogates.dates.shifted(**parts) or surrogates.make("date", label)
    return surrogates.make(_kind_of(re.sub(r"\d+$", "", label.lower()) or label), label)


@lru_cache(maxsize=10_000)
def _kind_of(label: str) -> str:
    return next(kind for pattern, kind in _KINDS if pattern.search(label))
