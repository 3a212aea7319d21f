# SPDX-License-Identifier: Apache-2.0
"""What stands in for a patient's removed names, places and numbers."""

import hashlib
from collections.abc import Sequence
from datetime import date, timedelta
from typing import TypeVar

from bcmb_jax.data.clean import names
from bcmb_jax.data.clean.dates import MONTHS, Dates

T = TypeVar("T")

_FIRST_DAY, _DAYS = date(1990, 1, 1), 30 * 365  # of dates that had to be made up
_PHONES = ("({}) 555-{}", "{}-555-{}", "{}.555.{}")


class Surrogates:
    """One patient's: each depends on the seed, the patient and its key, and on nothing else."""

    def __init__(self, seed: int, group: str):
        start = f"{seed}\0{group}\0".encode("utf-8", "surrogatepass")
        self._hash = hashlib.blake2b(start, digest_size=8)
        self.dates = Dates(self.number)

    def number(self, key: str, limit: int) -> int:
        """From 0 to `limit` - 1."""
        drawn = self._hash.copy()
        drawn.update(key.encode("utf-8", "surrogatepass"))
        return int.from_bytes(drawn.digest(), "little") % limit

    def pick(self, key: str, items: Sequence[T]) -> T:
        return items[self.number(key, len(items))]

    def make(self, kind: str, key: str) -> str:
        """A stand-in of that kind; the same for the same kind and key."""
        key = f"{kind}\0{key}"
        # Several draws for one stand-in differ by a word after the key.
        first, last = self.pick(key + "first", names.EITHER), self.pick(key + "last", names.LAST)
        town = self.pick(key + "town", names.TOWN_STARTS) + self.pick(key + "end", names.TOWN_ENDS)
        made_up = self.number(key + "number", 10**9)
        match kind:
            case "date" | "day" | "month and year":
                return self.dates.format(kind, _FIRST_DAY + timedelta(made_up % _DAYS))
            case "dates":
                days = [_FIRST_DAY + timedelta(made_up % _DAYS + more) for more in (0, 5)]
                return " - ".join(self.dates.format("day", day) for day in days)
            case "month":
                return self.pick(key, MONTHS)
            case "year":
                return str(_FIRST_DAY.year + made_up % 30)
            case "holiday":
                return self.pick(key, names.HOLIDAYS)
            case "old age":
                return str(90 + made_up % 10)
            case "count":
                return str(2 + made_up % 8)
            case "phone":  # next to nobody has a 555 number
                return self.pick(key, _PHONES).format(200 + made_up % 700, f"{made_up:09}"[:4])
            case "pager" | "zip":
                return f"{made_up:09}"[:5]
            case "social security":  # none begins with 9
                return f"9{made_up:09}"[:3] + f"-{made_up % 100:02}-{made_up // 100 % 10**4:04}"
            case "digits":
                return str(10**4 + made_up)[: 5 + made_up % 4]
            case "record":
                return str(10**6 + made_up % (9 * 10**6))
            case "url":
                return f"www.{town.lower()}.example.org"
            case "email":
                return f"{first}.{last}@example.org".lower()
            case "street":
                return f"{1 + made_up % 900} {last} {self.pick(key, names.STREETS)}"
            case "state" | "country" | "ward":
                table = {"state": names.STATES, "country": names.COUNTRIES, "ward": names.WARDS}
                return self.pick(key, table[kind]) + (f" {1 + made_up % 9}" * (kind == "ward"))
            case "university":
                return f"{town} {self.pick(key, names.UNIVERSITIES)}"
            case "company":
                return f"{last} {self.pick(key, names.COMPANIES)}"
            case "hospital":
                return f"{town} {self.pick(key, names.HOSPITALS)}"
            case "town":
                return town
            case "initials":
                return first[0] + last[0]
            case "first":
                return first
            case "female" | "male":
                return self.pick(key, names.FEMALE if kind == "female" else names.MALE)
            case "full":
                return f"{first} {last}"
            case _:
                return last
