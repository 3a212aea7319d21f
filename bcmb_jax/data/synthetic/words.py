# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the synthetic notes, from `tables.json`: problems, drugs, tests, phrases.

In a phrase `[x|y]` is a choice and `{fact}` a fact of the patient; `writer.Writer.say` fills both.
"""

import json
from importlib.resources import files
from typing import Any, NamedTuple

TABLES: dict[str, Any] = json.loads((files(__package__) / "tables.json").read_text("utf-8"))


class Problem(NamedTuple):
    """The reason of an admission, and everything coherent with it."""

    names: list[str]
    complaint: list[str]
    background: str  # the chronic condition that comes with it, or nothing
    specialist: str
    symptoms: list[str]
    vitals: list[str]  # adjectives that `Writer.vitals` turns into numbers
    system: str  # the one examined system that is abnormal
    exam: str  # its finding
    labs: dict[str, str]  # abnormal tests, each "high" or "low"
    imaging: list[tuple[str, str, str]]  # modality, finding and impression of each study
    treatment: list[str]  # inpatient drugs, as named in `DRUGS`
    course: list[str]
    home: list[str]  # drugs started at discharge
    advice: str
    procedure: str  # one, or nothing
    operation: list[str]  # its steps


class Drug(NamedTuple):
    """The ways in which a drug is ordered."""

    doses: list[str]
    route: str
    frequencies: list[str]


class Condition(NamedTuple):
    """A chronic condition; `status` is a plan's remark while it is quiet."""

    names: list[str]
    drugs: list[str]
    status: str


class Lab(NamedTuple):
    """A laboratory test and its ranges of values."""

    names: list[str]
    unit: str
    decimals: int
    normal: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]


class Modality(NamedTuple):
    """An imaging study; a report leaves out normal findings that share a word with the abnormal."""

    exam: str
    technique: str
    normal: list[str]


PROBLEMS = [Problem(**problem) for problem in TABLES["problems"]]
DRUGS = {name: Drug(*drug) for name, drug in TABLES["drugs"].items()}
CONDITIONS = {names[0]: Condition(names, *rest) for names, *rest in TABLES["conditions"]}
LABS = {names[0]: Lab(names, *rest) for names, *rest in TABLES["labs"]}
MODALITIES = {name: Modality(*modality) for name, modality in TABLES["modalities"].items()}
SYSTEMS: dict[str, list[str]] = TABLES["systems"]  # examined systems and their normal findings
