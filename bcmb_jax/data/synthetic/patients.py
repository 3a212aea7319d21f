# SPDX-License-Identifier: Apache-2.0
"""The synthetic patients: who they are and one coherent stay, drawn from (seed, number)."""

import random
from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from typing import NamedTuple, TypeVar

from bcmb_jax.data.synthetic.words import (
    CONDITIONS,
    DRUGS,
    LABS,
    PROBLEMS,
    TABLES,
    Condition,
    Problem,
)

T = TypeVar("T")
_ROUTINE = "WBC hemoglobin platelets sodium potassium bicarbonate BUN creatinine glucose magnesium"


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


class Order(NamedTuple):
    """A drug as it is given to one patient."""

    drug: str
    dose: str
    route: str
    frequency: str
    reason: str


class Patient(NamedTuple):
    """A patient and one stay in hospital, of `days` nights (at least one)."""

    identifier: str
    age: int
    born: date
    admitted: date
    days: int
    problem: Problem
    chronic: tuple[Condition, ...]
    allergies: tuple[str, ...]  # "substance > reaction"
    home: tuple[Order, ...]
    treatment: tuple[Order, ...]
    discharge: tuple[Order, ...]
    labs: dict[str, tuple[str, ...]]  # one value a day, from admission to discharge
    facts: dict[str, str]  # values of `{…}` in phrases, the same in all notes of the patient


def draw_patient(seed: int, number: int) -> Patient:
    """Return the patient with that number, the same on every machine."""
    draw = Draw(f"patient {seed} {number}")
    problem = draw.pick(PROBLEMS)
    sex = draw.pick("FM")
    age = max(draw.between(22, 93), draw.between(22, 93))  # mostly old
    admitted = date(2009, 1, 1) + timedelta(days=draw.between(0, 5400))
    days = 1 + draw.between(0, 4)
    days += min(int(2.0 * (1.0 / (1.0 - draw.random()) - 1.0)), 90)  # a heavy tail: Pareto's
    allergies = tuple(draw.some(TABLES["allergies"], 1, 2)) if draw.chance(0.55) else ()
    chronic = _chronic(draw, problem, sex)
    doses: dict[str, Order] = {}

    def orders(drugs: Iterable[tuple[str, str]]) -> tuple[Order, ...]:
        """Order drugs, each for its reason, without what the patient is allergic to."""
        ordered = {}
        for drug, reason in drugs:
            if any(_is_allergic(allergy, drug) for allergy in allergies):
                continue
            if drug not in doses:  # one dose for one drug, in all lists of the patient
                known = DRUGS[drug]
                dose, frequency = draw.pick(known.doses), draw.pick(known.frequencies)
                name = drug.removesuffix(" IV")
                doses[drug] = Order(name, dose, known.route, frequency, reason)
            ordered[doses[drug].drug] = doses[drug]
        return tuple(ordered.values())

    home = orders((d, c.names[0]) for c in chronic for d in draw.some(c.drugs, 1, 2))
    reason, taken = problem.names[0], {order.drug for order in home}
    treatment = orders((drug, reason) for drug in problem.treatment)
    discharge = orders((drug, reason) for drug in problem.home if drug not in taken)
    surnames = draw.some(TABLES["last_names"], 4, 4)
    first = draw.pick(TABLES["first_names"][sex])
    attending, consultant, primary = (
        f"{draw.pick(TABLES['first_names'][draw.pick('FM')])} {surname}" for surname in surnames[1:]
    )
    born = admitted - timedelta(days=age * 1461 // 4 + draw.between(2, 360))
    facts = {
        "sex": sex,
        "first": first,
        "last": surnames[0],
        "doctor": attending,
        "attending": surnames[1],
        "consultant": consultant,
        "primary": primary,
        "specialist": problem.specialist,
        "mrn": f"{draw.between(1000000, 9999999)}",
        "hospital": draw.pick(TABLES["hospitals"]),
    }
    labs = _labs(draw, problem, days)
    return Patient(
        f"P{seed}-{number:06d}", age, born, admitted, days, problem, chronic, allergies,
        home, treatment, discharge, labs, facts | _facts(draw, sex),
    )  # fmt: skip


def _chronic(draw: Draw, problem: Problem, sex: str) -> tuple[Condition, ...]:
    names = [problem.background] if problem.background else []
    for name in draw.some(tuple(CONDITIONS), 1, 5):
        kind = "diabetes" if "diabetes" in name else name  # one type of it at most
        if not any(kind in other for other in names) and TABLES["only"].get(name, sex) == sex:
            names.append(name)
    return tuple(CONDITIONS[name] for name in names)


def _is_allergic(allergy: str, drug: str) -> bool:
    substance = allergy.split(" > ")[0]
    return "cillin" in drug if substance == "penicillin" else drug.startswith(substance)


def _labs(draw: Draw, problem: Problem, days: int) -> dict[str, tuple[str, ...]]:
    """Abnormal tests drift to the normal range during the stay; the others stay in it."""
    others = [name for name in _ROUTINE.split() if name not in problem.labs]
    series = {}
    for name in [*problem.labs, *draw.some(others, 3, len(others))]:
        lab = LABS[name]
        start_range = getattr(lab, problem.labs.get(name, "normal"))
        start, end = (low + draw.random() * (high - low) for low, high in (start_range, lab.normal))
        jitter = (lab.normal[1] - lab.normal[0]) * 0.1
        values = []
        for day in range(days + 1):
            share = min(1.0, day / min(days, 12))
            noise = (2 * draw.random() - 1) * jitter if day else 0.0
            values.append(f"{max(start + share * (end - start) + noise, 0):.{lab.decimals}f}")
        series[name] = tuple(values)
    return series


def _facts(draw: Draw, sex: str) -> dict[str, str]:
    side, other = draw.some(("left", "right"), 2, 2)
    return {
        "side": side, "other": other,
        "title": draw.pick(("Mrs.", "Ms.")) if sex == "F" else "Mr.",
        **TABLES["words_of_sex"][sex],
        "duration": draw.pick(TABLES["durations"]),
        "number": str(draw.between(5, 14)), "units": str(draw.between(2, 4)),
        "ef": str(5 * draw.between(4, 9)), "rate": str(draw.between(122, 168)),
        "job": draw.pick(TABLES["jobs"]), "town": draw.pick(TABLES["towns"]),
        "street": f"{draw.between(2, 480)} {draw.pick(TABLES['streets'])}",
        "family": draw.pick(TABLES["families"]),
        "phone": f"({draw.between(201, 989)}) 555-01{draw.between(0, 99):02d}",
        "packs": str(5 * draw.between(2, 10)), "drinks": str(draw.between(1, 6)),
        "smoking": draw.pick(TABLES["smoking"]), "alcohol": draw.pick(TABLES["alcohol"]),
    }  # fmt: skip
