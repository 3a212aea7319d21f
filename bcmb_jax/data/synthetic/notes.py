# SPDX-License-Identifier: Apache-2.0
"""Synthetic clinical notes: one patient's stay, written up as eight kinds of document.

The same facts (names, side, doses, laboratory values by day) return through all notes of a
patient, so that the context tells a language model what single words cannot.
"""

from collections.abc import Iterator
from typing import NamedTuple

from bcmb_jax.data.synthetic.patients import Draw, draw_patient
from bcmb_jax.data.synthetic.sections import Sections
from bcmb_jax.data.synthetic.words import TABLES


class Note(NamedTuple):
    """One synthetic note."""

    text: str
    patient: str
    """The group: all notes of a patient belong to one split."""
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
        yield Note(_NoteWriter(patient, draw, day).write(kind), patient.identifier, kind)


class _NoteWriter(Sections):
    """A whole document: its header, its sections under their headings, its signature."""

    def write(self, kind: str) -> str:
        sections = [self.section(name) for name in TABLES["documents"][kind]]
        parts = [self.header(kind), *sections, self.signature()]
        return self.mistype("\n\n".join(part for part in parts if part)) + "\n"

    def section(self, name: str) -> str:
        body: str = getattr(self, name)()
        if name not in TABLES["headings"] or not body:
            return body
        heading = self.term(TABLES["headings"][name])
        heading = heading.upper() if self.capitals else heading
        short = len(body) < 60 and "\n" not in body
        return f"{heading}: {body}" if short else f"{heading}:\n{body}"

    def mistype(self, text: str) -> str:
        """Two neighbouring letters change places in about one note of ten."""
        at = self.draw.between(0, len(text) - 2)
        if self.draw.chance(0.12) and text[at : at + 2].isalpha():
            return text[:at] + text[at + 1] + text[at] + text[at + 2 :]
        return text

    def header(self, kind: str) -> str:
        p, clock = self.patient, f"{self.draw.between(0, 23):02d}:{self.draw.between(0, 59):02d}"
        title = kind.upper() if self.capitals else kind[0].upper() + kind[1:]
        name = self.draw.pick((f"{p.first} {p.last}", f"{p.last}, {p.first}"))
        if kind == "nursing note":
            return self.say(f"{title} {{today}} {clock}\n{name}, MRN {p.mrn}")
        dates = f"Date: {{today}} {clock}"
        if kind == "discharge summary":
            dates = (
                "[Admission Date|Admitted]: {admitted}\n[Discharge Date|Discharged]: {discharged}"
            )
        return self.say(
            f"[{p.hospital}\n|]{title}\n\n[Name|Patient|Patient Name]: {name}\n"
            f"[MRN|Medical Record Number|Unit No]: {p.mrn}\n"
            f"[DOB|Date of Birth]: {self.format_date(p.born)}   Sex: {p.sex}\n{dates}\n"
            f"[Attending: {p.doctors[0]}, MD|Attending: Dr. {p.doctors[0]}|]"
        ).rstrip()

    def signature(self) -> str:
        doctor = self.patient.doctors[0]
        return self.say(
            f"[[Electronically signed|Signed|Dictated] by {doctor}, MD on {{today}}|{doctor}, MD|]"
        )
