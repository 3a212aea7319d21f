# SPDX-License-Identifier: Apache-2.0
"""Synthetic clinical notes: one patient's stay, written up as eight kinds of document.

The same facts (names, side, doses, laboratory values by day) return through all notes of a
patient, so that the context tells a language model what single words cannot.
"""

from collections.abc import Iterator
from typing import NamedTuple

from bcmb_jax.data.synthetic.patients import Draw, draw_patient
from bcmb_jax.data.synthetic.words import MODALITIES, SYSTEMS, TABLES
from bcmb_jax.data.synthetic.writer import Writer


class Note(NamedTuple):
    """One synthetic note; `patient` is its group: all notes of a patient belong to one split."""

    text: str
    patient: str
    kind: str


_PATIENT_OF = (0, 1, 1, 2, 2, 2, 3, 4, 4, 4, 4, 4)  # 12 notes of 5 patients, then of 5 others
_ON_ADMISSION = ("ED note", "history and physical", "operative note")


def synthetic_notes(count: int, seed: int) -> Iterator[Note]:
    """`count` notes; note `i` depends on `(seed, i)` only, and is the same on every platform."""
    for i in range(count):
        block, place = divmod(i, len(_PATIENT_OF))
        number = 5 * block + _PATIENT_OF[place]
        patient = draw_patient(seed, number)
        kinds = [
            k for k in TABLES["documents"] if k != "operative note" or patient.problem.procedure
        ]
        order = Draw(f"kinds {seed} {number}").some(kinds, len(kinds), len(kinds))
        kind = order[place - _PATIENT_OF.index(_PATIENT_OF[place])]  # no patient has one kind twice
        draw = Draw(f"note {seed} {i}")
        day = draw.between(0, patient.days)
        if kind == "discharge summary" or kind in _ON_ADMISSION:
            day = patient.days if kind == "discharge summary" else 0
        yield Note(_Author(patient, draw, day).document(kind), patient.identifier, kind)


class _Author(Writer):
    """Author of whole documents: a header, sections under their headings, a signature.

    Parts that are more than the phrases in the tables have a method `write_…` here.
    """

    def document(self, kind: str) -> str:
        sections = [self.section(name) for name in TABLES["documents"][kind]]
        parts = [self.header(kind), *sections, self.part("signature")]
        text = "\n\n".join(part for part in parts if part)
        at = self.draw.between(0, len(text) - 2)
        if self.draw.chance(0.12) and text[at : at + 2].isalpha():  # neighbours change places
            text = text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return text + "\n"

    def header(self, kind: str) -> str:
        self.facts["clock"] = f"{self.draw.between(0, 23):02d}:{self.draw.between(0, 59):02d}"
        self.facts["kind"] = kind.upper() if self.capitals else kind[0].upper() + kind[1:]
        self.facts["name"] = self.draw.pick(("{first} {last}", "{last}, {first}"))
        headers = TABLES["headers"]
        return self.say(headers.get(kind, headers["other"])).rstrip()

    def section(self, name: str) -> str:
        body = self.part(name).rstrip()
        if name not in TABLES["headings"] or not body:
            return body
        heading = self.term(TABLES["headings"][name])
        heading = heading.upper() if self.capitals else heading
        short = len(body) < 60 and "\n" not in body
        return f"{heading}: {body}" if short else f"{heading}:\n{body}"

    def write_pmh(self) -> str:
        names = [self.term(condition.names) for condition in self.patient.chronic]
        return self.sentences(self.listing(names)) if self.prose else self.lines(names)

    def write_allergies(self) -> str:
        known = [allergy.split(" > ") for allergy in self.patient.allergies]
        listed = ", ".join(f"{substance} ({reaction})" for substance, reaction in known)
        return listed or self.say("[NKDA|No known drug allergies|None]")

    def write_nursing(self) -> str:
        return self.sentences(
            "[Received {pt} from ED with {dx}|{aged} {gender} with {dx}|{pt} here with {symptom}|]",
            *self.draw.some(TABLES["daily"], 3, 6),
            "[Will continue to monitor|Dr. {attending} aware|Call light within reach|]",
        )

    def write_exam(self) -> str:
        ill = self.patient.problem.system if self.day < self.patient.days else ""
        findings = [
            f"{system}: {'{exam}' if system == ill else self.draw.pick(normal)}"
            for system, normal in SYSTEMS.items()
            if system == ill or self.draw.chance(0.6)
        ]
        vitals = self.say("[Vitals|VS|Vital signs]: {vitals}")
        listed = [self.sentences(*findings)] if self.prose else map(self.say, findings)
        return "\n".join((vitals, *listed))

    def write_labs(self) -> str:
        if self.prose:
            return self.sentences("{panel}")
        days = sorted({0, self.day // 2, self.day}) if self.draw.chance(0.5) else [self.day]
        return "\n".join(self.on_day(day, "{today}: {panel}") for day in days)

    def write_imaging(self) -> str:
        return "\n".join(
            self.say(f"{study}[ ({{admitted}})|]: {self.sentences(finding)}")
            for study, finding, _ in self.patient.problem.imaging
        )

    def write_course(self) -> str:
        draw, events = self.draw, list(self.patient.problem.course)
        opening = self.on_day(0, *TABLES["parts"]["admission"])
        if self.patient.days < 5 and draw.chance(0.7):
            return f"{opening} {self.sentences(*events)}"
        days = []
        for day in range(self.patient.days):
            phrases = draw.some(TABLES["daily"], 2, 7)
            if events and draw.chance(0.5):
                phrases.insert(0, events.pop(0))
            if day > 4 and draw.chance(0.12):
                phrases.append("{he} " + draw.pick(TABLES["complications"]))
            text = self.on_day(day, *phrases)
            days.append(f"{self.on_day(day, '[HD {hd}|Hospital day {hd}] ({today})')[:-1]}: {text}")
        return "\n".join([opening, *days, self.write_conditions()])

    def write_plan(self) -> str:
        summary, main, last = map(self.part, ("summary", "main_plan", "last_plan"))
        return f"{summary}\n{main}\n{self.write_conditions()}\n{last}"

    def write_conditions(self) -> str:
        lines = []
        for condition in self.patient.chronic:
            orders = [o for o in self.patient.home if o.reason == condition.names[0]]
            given = self.listing([self.order(order) for order in orders])
            plan = f"[continue|continued|cont|on] [home |]{given}" if given else "stable"
            status = f"[, {condition.status}|. {self.sentences(condition.status)}|]"
            lines.append(self.say(f"# {self.term(condition.names)}: {plan}{status}"))
        return "\n".join(lines)

    def write_measures(self) -> str:
        return self.sentences(
            "[Continue|Cont] {rx}",
            "[{notable}|]",
            *self.draw.some(self.patient.problem.course if self.day else (), 1, 2),
            "[{specialist} following|Appreciate {specialist} recs|Trend labs|]",
        )

    def write_recommendations(self) -> str:
        opinion = self.part("opinion")
        given = ["[Continue|Agree with|Recommend] " + self.order(o) for o in self.patient.treatment]
        advice = self.draw.some(TABLES["recommendations"], 1, 3)
        return f"{opinion}\n{self.lines([*given, *advice])}"

    def write_followup(self) -> str:
        discharged, weeks = self.patient.days, self.draw.between(1, 4)
        self.facts["first_visit"] = self.date(discharged + 7)
        self.facts["second_visit"] = self.date(discharged + 7 * weeks)
        return self.lines(self.draw.some(TABLES["visits"], 2, 2))

    def write_radiology(self) -> str:
        study, finding, impression = self.draw.pick(self.patient.problem.imaging)
        modality = MODALITIES[study]
        alike = {word for word in finding.lower().split() if len(word) > 6}
        normal = [f for f in modality.normal if not alike & set(f.lower().split())]
        others = self.draw.some(normal, 2, len(normal))
        self.facts |= {
            "modality": modality.exam,
            "technique": modality.technique,
            "comparison": "[None|None available|{admitted}]" if self.day else "None",
            "findings": self.sentences(*[finding, *others][:: self.draw.pick((1, 1, -1))]),
            "impression": self.draw.pick(("", "1. ")) + self.sentences(impression),
        }
        parts = [(self.say(name), self.say(body)) for name, body in TABLES["radiology"].items()]
        return "\n\n".join(f"{n.upper() if self.capitals else n}: {body}" for n, body in parts)
