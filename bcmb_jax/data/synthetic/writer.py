# SPDX-License-Identifier: Apache-2.0
"""The language of the synthetic notes: phrases, filled in for one patient in one author's style.

A phrase is text with choices `[x|y]` and facts or parts `{name}`; all may contain each other.
"""

import datetime
import re
from collections.abc import Callable, Sequence

from bcmb_jax.data.synthetic.patients import Draw, Order, Patient
from bcmb_jax.data.synthetic.words import LABS, TABLES, Lab

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_FACT = re.compile(r"\{(\w+)\}")


class Writer:
    """Author of phrases about one patient on one day of the stay."""

    def __init__(self, patient: Patient, draw: Draw, day: int) -> None:
        self.patient, self.draw, self.day = patient, draw, day
        self.abbreviates = draw.pick((0.1, 0.5, 0.9))
        self.capitals = draw.chance(0.5)
        self.bullet = draw.pick(("{}. ", "- ", "* ", "{}) "))
        self.prose = draw.chance(0.3)
        self.spells_out = draw.chance(0.2)
        self.flags = draw.pick(({"high": " (H)", "low": " (L)"}, {"high": "*", "low": "*"}, {}))
        self.date_format = draw.pick(("{m:02d}/{d:02d}/{y}", "{y}-{m:02d}-{d:02d}", "{m}/{d}/{y}"))
        problem, age = patient.problem, str(patient.age)
        performed = f"{problem.procedure}[ ({{admitted}})|]" if problem.procedure else ""
        self.facts: dict[str, str | Callable[[], str]] = {
            **patient.facts,
            "aged": f"{'an' if age[0] == '8' else 'a'} {age}[-year-old| year old| y/o|yo]",
            "pt": "[the patient|the patient|pt|{title} {last}]",
            "dx": lambda: self.term(problem.names),
            "history": lambda: self.listing([self.term(c.names) for c in patient.chronic]),
            "Complaint": lambda: self.say(draw.pick(problem.complaint)).capitalize(),
            "symptom": lambda: draw.pick(problem.symptoms),
            "symptoms": lambda: self.listing(draw.some(problem.symptoms, 2, 4)),
            "negatives": self.negatives,
            "rx": lambda: self.order(draw.pick(patient.treatment)),
            "exam": problem.exam,
            "advice": problem.advice,
            "procedure": problem.procedure,
            "performed": performed,
            "steps": lambda: self.sentences(*problem.operation),
            "study": lambda: draw.pick(problem.imaging)[0],
            "result": lambda: "{} [showed|demonstrated|was notable for] {}".format(
                *draw.pick(problem.imaging)[::2]
            ),
            "lab": lambda: self.lab(draw.pick(list(patient.labs))),
            "notable": lambda: self.listing([self.lab(name) for name in self.notable()]),
            "panel": lambda: ", ".join(self.lab(name, unit=True) for name in patient.labs),
            "vitals": self.vitals,
            "home_orders": lambda: self.orders(patient.home),
            "discharge_orders": lambda: self.orders((*patient.discharge, *patient.home)),
            "events": lambda: self.sentences(*draw.some(TABLES["daily"], 2, 5)),
            "break": "[\n\n| ]",
            "arrival": lambda: self.on_day(0, *TABLES["parts"]["arrival"]),
            "today": lambda: self.date(self.day),
            "admitted": self.date(0),
            "discharged": self.date(patient.days),
            "born": self.format_date(patient.born),
            "hd": lambda: str(self.day + 1),
        }

    def say(self, phrase: str) -> str:
        """Return the phrase with its choices made and its facts filled in."""
        while "[" in phrase or "{" in phrase:
            phrase = _CHOICE.sub(lambda choice: self.draw.pick(choice[1].split("|")), phrase)
            phrase = _FACT.sub(self._fact, phrase)
        return phrase

    def _fact(self, match: re.Match[str]) -> str:
        value = self.facts.get(match[1])
        if value is None:
            return self.part(match[1])
        return value if isinstance(value, str) else value()

    def part(self, name: str) -> str:
        """Return a part of a note: its method `write_…`, its phrase or its sentences."""
        if method := getattr(self, f"write_{name}", None):
            return str(method())
        phrases = TABLES["parts"][name]
        return self.say(phrases) if isinstance(phrases, str) else self.sentences(*phrases)

    def sentences(self, *phrases: str) -> str:
        """Return the phrases as sentences; empty ones are left out."""
        texts = [" ".join(self.say(phrase).split()) for phrase in phrases]
        return " ".join(f"{s[0].upper()}{s[1:].removesuffix('.')}." for s in texts if s)

    def on_day(self, day: int, *phrases: str) -> str:
        """Return sentences that were true on another day of the stay."""
        today, self.day = self.day, day
        text = self.sentences(*phrases)
        self.day = today
        return text

    def lines(self, items: Sequence[str]) -> str:
        """Return the phrases as a list in the author's style."""
        return "\n".join(self.bullet.format(n) + self.say(item) for n, item in enumerate(items, 1))

    def listing(self, items: Sequence[str], conjunction: str = "and") -> str:
        """Join items as "a, b and c"."""
        if len(items) < 2:
            return "".join(items)
        comma = self.draw.pick(("", ",")) if len(items) > 2 else ""
        return f"{', '.join(items[:-1])}{comma} {conjunction} {items[-1]}"

    def term(self, names: Sequence[str]) -> str:
        """Return the full name, or an abbreviation where the author likes them."""
        if len(names) > 1 and self.draw.chance(self.abbreviates):
            return self.draw.pick(names[1:])
        return names[0]

    def date(self, day: int) -> str:
        """Format the date of a day of the stay."""
        return self.format_date(self.patient.admitted + datetime.timedelta(days=day))

    def format_date(self, when: datetime.date) -> str:
        """Format a date in the author's style."""
        return self.date_format.format(d=when.day, m=when.month, y=when.year)

    def negatives(self) -> str:
        """List symptoms to deny, none that the patient has."""
        present = "; ".join(self.patient.problem.symptoms + self.patient.problem.complaint)
        absent = [s for s in TABLES["negatives"] if s.removesuffix("s") not in present]
        return self.listing(self.draw.some(absent, 2, 5), "or")

    def order(self, order: Order) -> str:
        """Write "lisinopril 10 mg PO daily", or the same for lay readers."""
        known = TABLES["spelled_out"] if self.spells_out else {}
        return " ".join(known.get(word, word) for word in " ".join(order[:4]).split(" "))

    def orders(self, orders: Sequence[Order]) -> str:
        """Write a list of orders; new ones are marked."""
        new = self.patient.discharge
        texts = [("[START |NEW: ||]" if o in new else "") + self.order(o) for o in orders]
        if self.draw.chance(0.4):
            texts = [f"{s} for {o.reason}" for s, o in zip(texts, orders, strict=True)]
        if not texts:
            return "None"
        return self.sentences(", ".join(texts)) if self.prose else self.lines(texts)

    def lab(self, name: str, unit: bool = False) -> str:
        """Write "creatinine 2.1 mg/dL (H)"."""
        lab, value = LABS[name], self.patient.labs[name][self.day]
        text = f"{self.term(lab.names)} {value}" + (f" {lab.unit}" if unit else "")
        return text.removesuffix(" -") + self.flags.get(_direction(lab, value), "")

    def notable(self) -> list[str]:
        """Return the abnormal tests of the day, or the routine ones when all are normal."""
        labs = self.patient.labs
        return [n for n in labs if _direction(LABS[n], labs[n][self.day])] or list(labs)[:3]

    def vitals(self) -> str:
        """Write vital signs: deranged by the problem on admission, normal at discharge."""
        sickness = 1.0 - min(1.0, self.day / min(self.patient.days, 6))
        signs, draw = self.patient.problem.vitals, self.draw

        def shifted(sign: str, amount: float) -> float:
            return sickness * amount * (0.6 + 0.4 * draw.random()) if sign in signs else 0.0

        temperature = draw.between(976, 989) / 10 + shifted("febrile", 4.2)
        pulse = draw.between(64, 92) + shifted("tachycardic", 44) - shifted("bradycardic", 24)
        change = shifted("hypertensive", 60) - shifted("hypotensive", 34)
        systolic, diastolic = draw.between(112, 136) + change, draw.between(62, 82) + 0.5 * change
        breaths = draw.between(14, 18) + shifted("tachypneic", 12) + shifted("hypoxic", 6)
        saturation = draw.between(95, 99) - shifted("hypoxic", 9)
        oxygen = "[on room air|RA]" if saturation > 91.5 else "[on {units}L NC|on room air]"
        return self.say(
            f"[T|Temp] {temperature:.1f}, HR {pulse:.0f}, BP {systolic:.0f}/{diastolic:.0f}, "
            f"RR {breaths:.0f}, [SpO2|O2 sat|sat] {saturation:.0f}% {oxygen}"
        )


def _direction(lab: Lab, value: str) -> str:
    low, high = lab.normal
    return "high" if float(value) > high else "low" if float(value) < low else ""
