# SPDX-License-Identifier: Apache-2.0
"""A patient's dates: all moved by one time, and written in one style."""

from collections.abc import Callable
from datetime import date, timedelta

MONTHS = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
]
_STYLES = (
    {"date": "{m}/{d}/{y}", "day": "{m}/{d}", "month and year": "{m}/{y}"},
    {"date": "{m:02}/{d:02}/{y}", "day": "{m:02}/{d:02}", "month and year": "{m:02}/{y}"},
    {"date": "{y}-{m:02}-{d:02}", "day": "{m:02}-{d:02}", "month and year": "{y}-{m:02}"},
    {"date": "{month} {d}, {y}", "day": "{month} {d}", "month and year": "{month} {y}"},
)


class Dates:
    """One patient's, by `number(key, limit)`, which draws from 0 to `limit` - 1."""

    def __init__(self, number: Callable[[str, int], int]):
        self._style = _STYLES[number("style", len(_STYLES))]
        # MIMIC's dates lie in the 22nd century, in the right season and on the right weekday: so
        # 112 to 132 years and up to two weeks are taken off, in whole weeks, and so that leap years
        # (every fourth, but not 2100) meet leap years.
        self._years = 112 + 4 * number("years", 6)
        days = 1461 * self._years // 4 - 1
        self._time = timedelta(days - days % 7 + 7 * number("weeks", 3) - 7)

    def shifted(
        self, year: int | None = None, month: int | None = None, day: int | None = None
    ) -> str | None:
        """The date, or the part of it that is known, moved; None if there is no such date."""
        kind = "day" if year is None else "month and year" if day is None else "date"
        if year is None:  # any will do, as leap years meet leap years
            year = 2104 if (month, day) == (2, 29) else 2105
        try:
            if month is None:
                return str(date(year - self._years, 1, 1).year)
            return self.format(kind, date(year, month, 15 if day is None else day) - self._time)
        except (ValueError, OverflowError):  # the 31st of February, the year 1
            return None

    def format(self, kind: str, day: date) -> str:
        """A "date", a "day" without its year, or a "month and year"."""
        style = self._style[kind]
        return style.format(y=day.year, m=day.month, d=day.day, month=MONTHS[day.month - 1])
