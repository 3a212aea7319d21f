# SPDX-License-Identifier: Apache-2.0
"""Stand-ins for a patient's removed names, places, numbers and dates."""

import hashlib
import re
import tomllib
from calendar import isleap
from collections.abc import Sequence
from datetime import date, timedelta
from importlib import resources
from typing import Any, TypeVar

T = TypeVar("T")

DATE_SHIFTS = ("weekday", "season")
"""Choices of what the dates of a patient keep when they are moved."""

DATA: dict[str, Any] = tomllib.loads(
    resources.files(__package__).joinpath("surrogates.toml").read_text(encoding="utf-8")
)
"""Word lists, and how the kind of a placeholder is told: `words`, `labels` and `phrases`."""

_WORDS: dict[str, list[str]] = DATA["words"]
# MIMIC's dates lie in the 22nd century: 112 to 132 years are taken off.
_LEAST_YEARS, _MOST_YEARS = 112, 132
_DAYS_OF_SEASON = 21  # a date stays this near to its day of the year
_FIRST_DAY, _DAYS = date(1990, 1, 1), 30 * 365  # the range of dates that had to be made up
_PHONES = ("({}) 555-{}", "{}-555-{}", "{}.555.{}")
_DATE_STYLES = (
    {"date": "{m}/{d}/{y}", "day": "{m}/{d}", "month and year": "{m}/{y}"},
    {"date": "{m:02}/{d:02}/{y}", "day": "{m:02}/{d:02}", "month and year": "{m:02}/{y}"},
    {"date": "{y}-{m:02}-{d:02}", "day": "{m:02}-{d:02}", "month and year": "{y}-{m:02}"},
    {"date": "{month} {d}, {y}", "day": "{month} {d}", "month and year": "{month} {y}"},
)


class Surrogates:
    """A patient's stand-ins: functions of the patient, the secret (or seed) and a key alone.

    All dates of a patient are moved by one time, and written in one style.

    Args:
      start: stands for the patient, with the secret in it. Whoever can compute it for a record
        number can search for that number, as the stand-ins follow from it.
      date_shift: "weekday" moves dates by whole weeks (1,044 times), "season" to within three weeks
        of the same day in another year (903 times).
    """

    def __init__(self, start: bytes, date_shift: str = "weekday"):
        self._hash = hashlib.blake2b(start, digest_size=8)
        self._date_style = self.pick("style", _DATE_STYLES)
        if date_shift == "weekday":
            first, last = _LEAST_YEARS * 1461 // 28, _MOST_YEARS * 1461 // 28
            self._shift = timedelta(weeks=first + self.number("weeks", last - first + 1))
        else:
            years = _LEAST_YEARS + self.number("years", _MOST_YEARS - _LEAST_YEARS + 1)
            days = self.number("days", 2 * _DAYS_OF_SEASON + 1) - _DAYS_OF_SEASON
            self._shift = timedelta(round(365.2425 * years) + days)

    def number(self, key: str, limit: int) -> int:
        """Draw a number from 0 to `limit` - 1."""
        drawn = self._hash.copy()
        drawn.update(key.encode("utf-8", "surrogatepass"))
        return int.from_bytes(drawn.digest(), "little") % limit

    def pick(self, key: str, items: Sequence[T]) -> T:
        """Draw one of the items."""
        return items[self.number(key, len(items))]

    def shift_date(
        self,
        year: int | None = None,
        month: int | None = None,
        day: int | None = None,
        *,
        year_of_note: int = 2105,
    ) -> str | None:
        """Return the known part of a date, moved; None if there is no such date.

        Args:
          year_of_note: taken for a date without its year. A wrong one may cost a day, as leap days
            lie elsewhere.
        """
        kind = "day" if year is None else "month and year" if day is None else "date"
        if year is None:
            year = year_of_note
            if (month, day) == (2, 29) and not isleap(year):
                year = 2104
        try:
            if month is None:
                return str((date(year, 7, 1) - self._shift).year)
            moved = date(year, month, 15 if day is None else day) - self._shift
            return self.format_date(kind, moved)
        except (ValueError, OverflowError):  # the 31st of February, the year 1
            return None

    def format_date(self, kind: str, day: date) -> str:
        """Write a "date", a "day" without its year, or a "month and year"."""
        style, month = self._date_style[kind], _WORDS["months"][day.month - 1]
        return style.format(y=day.year, m=day.month, d=day.day, month=month)

    def make(self, kind: str, key: str) -> str:
        """Return a stand-in of that kind; the same for the same kind and key."""
        key = f"{kind}\0{key}"
        drawn = self.number(key + "number", 10**9)
        day = _FIRST_DAY + timedelta(drawn % _DAYS)
        match kind:
            case "date" | "day" | "month and year":
                return self.format_date(kind, day)
            case "dates":
                return " - ".join(self.format_date("day", day + timedelta(n)) for n in (0, 5))
            case "year":
                return str(_FIRST_DAY.year + drawn % 30)
            case "old age":
                return str(90 + drawn % 10)
            case "count":
                return str(2 + drawn % 8)
            case "phone":  # next to nobody has a 555 number
                return self.pick(key, _PHONES).format(200 + drawn % 700, f"{drawn:09}"[:4])
            case "pager" | "zip":
                return f"{drawn:09}"[:5]
            case "social security":  # none begins with 9
                return f"9{drawn:09}"[:3] + f"-{drawn % 100:02}-{drawn // 100 % 10**4:04}"
            case "digits":
                return str(10**4 + drawn)[: 5 + drawn % 4]
            case "record":
                return str(10**6 + drawn % (9 * 10**6))
            case "street":
                return f"{1 + drawn % 900} {self._draw('last', key)} {self._draw('streets', key)}"
            case "ward":
                return f"{self._draw('wards', key)} {1 + drawn % 9}"
        template: str = DATA["templates"].get(kind, "{last}")
        names = re.findall(r"\{(\w+)", template)
        made = template.format(**{name: self._draw(name, key) for name in names})
        return made.lower() if kind in ("email", "url") else made

    def _draw(self, name: str, key: str) -> str:
        """Draw what a template names; several draws for one key differ by a word after it."""
        match name:
            case "first":
                return self.pick(key + "first", _WORDS["either"])
            case "last":
                return self.pick(key + "last", _WORDS["last"])
            case "town":
                start = self.pick(key + "town", _WORDS["town_starts"])
                return start + self.pick(key + "end", _WORDS["town_ends"])
        return self.pick(key, _WORDS[name])
