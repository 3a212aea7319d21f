# SPDX-License-Identifier: Apache-2.0
"""The synthetic patients: who they are and one coherent stay, drawn from (seed, number)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import NamedTuple, TypeVar

from bcmb_jax.data.synthetic import words
from bcmb_jax.data.synthetic.words import PROBLEMS, TABLES, Problem

T = TypeVar("T")


class Draw(random.Random):
    """Random choices built on `random()` alone, the one method Python keeps the same for ever."""

    def chance(self, probability: float) -> bool:
        """Return True with this probability."""
        return self.random() < probability

    def between(self, low: int, high: int) -> int:
        """Return a whole number from `low` to `high`, both included."""
        return low + int(self.random() * (high - low + 1))

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items."""
        return items[int(self.random() * len(items))]

    def some(self, items: Sequence[T], low: int, high: int) -> list[T]:
        """Return between `low` and `high` different items, in a drawn order."""
        rest = list(items)
        count = min(self.between(low, high), len(rest))
        return [rest.pop(int(self.random() * len(rest))) for _ in range(count)]

    def heavy_tail(self, scale: float, longest: int) -> int:
        """Return a Pareto variable of exponent 1: half below `scale`, a tenth above 9 × `scale`."""
        return min(int(scale * (1.0 / (1.0 - self.random()) - 1.0)), longest)


class Order(NamedTuple):
    """A drug as it is given to one patient."""

    drug: str
    dose: str
    route: str
    frequency: str
    reason: str

    def __str__(self) -> str:
        return f"{self.drug} {self.dose} {self.route} {self.frequency}"


@dataclass(frozen=True)
class Patient:
    """A patient and one stay in hospital."""

    identifier: str
    sex: str
    age: int
    born: date
    first: str
    last: str
    mrn: str
    hospital: str
    doctors: tuple[str, str, str]
    """Attending, consultant, primary care."""
    problem: Problem
    chronic: tuple[words.Condition, ...]
    allergies: tuple[str, ...]
    """"substance > reaction" """
    home: tuple[Order, ...]
    treatment: tuple[Order, ...]
    discharge: tuple[Order, ...]
    admitted: date
    days: int
    """Nights in hospital, at least one."""
    labs: dict[str, tuple[str, ...]]
    """One value a day, from the day of admission to the day of discharge."""
    facts: dict[str, str]
    """Values of the `{…}` in phrases, the same in all notes of the patient."""

    def day(self, number: int) -> date:
        """Return the date of a day of the stay, 0 for the admission."""
        return self.admitted + timedelta(days=number)


def draw_patient(seed: int, number: int) -> Patient:
    """Return the patient with that number, the same on every machine."""
    draw = Draw(f"patient {seed} {number}")
    problem = draw.pick(PROBLEMS)
    sex = draw.pick("FM")
    age = max(draw.between(22, 93), draw.between(22, 93))  # mostly old
    admitted = date(2009, 1, 1) + timedelta(days=draw.between(0, 5400))
    days = 1 + draw.between(0, 4) + draw.heavy_tail(2.0, 90)
    allergies = tuple(draw.some(TABLES["allergies"], 1, 2)) if draw.chance(0.55) else ()
    chronic = _chronic(draw, problem, sex)
    doses: dict[str, Order] = {}

    def order(drug: str, reason: str) -> Order | None:
        if any(_is_allergic(allergy, drug) for allergy in allergies):
            return None
        if drug not in doses:  # one dose for one drug, in all lists of the patient
            known = words.DRUGS[drug]
            name = drug.removesuffix(" IV").removesuffix(" PO")
            dose, frequency = draw.pick(known.doses), draw.pick(known.frequencies)
            doses[drug] = Order(name, dose, known.route, frequency, reason)
        return doses[drug]

    home = [
        order(drug, condition.names[0])
        for condition in chronic
        for drug in draw.some(condition.drugs, 1, 2)
    ]
    reason = problem.names[0]
    treatment = [order(drug, reason) for drug in problem.treatment]
    old = {known.drug for known in home if known}
    new = [order(drug, reason) for drug in problem.home if drug not in old]
    surnames = draw.some(TABLES["last_names"], 4, 4)
    first_names = TABLES["first_names"]
    first, last = draw.pick(first_names[sex]), surnames[0]
    attending, consultant, primary = (
        f"{draw.pick(first_names[draw.pick('FM')])} {surname}" for surname in surnames[1:]
    )
    return Patient(
        identifier=f"P{seed}-{number:06d}",
        sex=sex,
        age=age,
        born=admitted - timedelta(days=age * 1461 // 4 + draw.between(2, 360)),
        first=first,
        last=last,
        mrn=f"{draw.between(1000000, 9999999)}",
        hospital=draw.pick(TABLES["hospitals"]),
        doctors=(attending, consultant, primary),
        problem=problem,
        chronic=chronic,
        allergies=allergies,
        home=_unique(home),
        treatment=_unique(treatment),
        discharge=_unique(new),
        admitted=admitted,
        days=days,
        labs=_labs(draw, problem, days),
        facts=_facts(draw, sex, first, last, problem),
    )


def _chronic(draw: Draw, problem: Problem, sex: str) -> tuple[words.Condition, ...]:
    names = [problem.background] if problem.background else []
    for name in draw.some(tuple(words.CONDITIONS), 1, 5):
        kind = "diabetes" if "diabetes" in name else name  # one type of it at most
        if not any(kind in other for other in names) and TABLES["only"].get(name, sex) == sex:
            names.append(name)
    return tuple(words.CONDITIONS[name] for name in names)


def _is_allergic(allergy: str, drug: str) -> bool:
    substance = allergy.split(" > ")[0]
    return "cillin" in drug if substance == "penicillin" else drug.startswith(substance)


def _unique(orders: Sequence[Order | None]) -> tuple[Order, ...]:
    """Return the orders that were given, one for each drug."""
    return tuple({order.drug: order for order in orders if order}.values())


def _labs(draw: Draw, problem: Problem, days: int) -> dict[str, tuple[str, ...]]:
    """Abnormal tests drift to the normal range during the stay; the others stay in it."""
    directions = problem.labs
    others = [name for name in _ROUTINE if name not in directions]
    series = {}
    for name in [*directions, *draw.some(others, 3, len(others))]:
        lab = words.LABS[name]
        start_range = getattr(lab, directions[name]) if name in directions else lab.normal
        start, end = (low + draw.random() * (high - low) for low, high in (start_range, lab.normal))
        jitter = (lab.normal[1] - lab.normal[0]) * 0.1
        values = []
        for day in range(days + 1):
            share = min(1.0, day / min(days, 12))
            noise = (2 * draw.random() - 1) * jitter if day else 0.0
            values.append(f"{max(start + share * (end - start) + noise, 0):.{lab.decimals}f}")
        series[name] = tuple(values)
    return series


_ROUTINE = ("WBC", "hemoglobin", "platelets", "sodium", "potassium", "bicarbonate", "BUN",
            "creatinine", "glucose", "magnesium")  # fmt: skip


def _facts(draw: Draw, sex: str, first: str, last: str, problem: Problem) -> dict[str, str]:
    female = sex == "F"
    side, other = draw.some(("left", "right"), 2, 2)
    he, his, him = ("she", "her", "her") if female else ("he", "his", "him")
    return {
        "first": first,
        "last": last,
        "title": draw.pick(("Mrs.", "Ms.")) if female else "Mr.",
        "gender": "[woman|female|F]" if female else "[man|male|M]",
        "he": he, "his": his, "him": him, "He": he.title(), "His": his.title(),
        "side": side, "Side": side.title(), "other": other,
        "duration": draw.pick(TABLES["durations"]),
        "specialist": problem.specialist,
        "number": str(draw.between(5, 14)), "units": str(draw.between(2, 4)),
        "ef": str(5 * draw.between(4, 9)), "rate": str(draw.between(122, 168)),
        "job": draw.pick(TABLES["jobs"]), "town": draw.pick(TABLES["towns"]),
        "street": f"{draw.between(2, 480)} {draw.pick(TABLES['streets'])}",
        "family": draw.pick(TABLES["families"]),
        "phone": f"({draw.between(201, 989)}) 555-01{draw.between(0, 99):02d}",
        "packs": str(5 * draw.between(2, 10)), "drinks": str(draw.between(1, 6)),
        "smoking": draw.pick(TABLES["smoking"]), "alcohol": draw.pick(TABLES["alcohol"]),
    }  # fmt: skip
