# SPDX-License-Identifier: Apache-2.0
"""Invented notes, and what cleaning makes of them."""

import random

from bcmb_jax.data.clean import Cleaner, Cleaning
from bcmb_jax.data.ingest.record import Document, Record

NOTE = """\
Sample Hospital
Name: Test Patient        Unit No: 12345
Admission Date:  1/2/2030       Discharge Date:  1/9/2030
Service: SURGERY

Chief Complaint:
belly pain

History of Present Illness:
The patient is a very patient patient who came in with pain in the
belly that had begun on the evening before, after a large meal, and
which went away when walking. No fever was measured at home. A follow-
up visit was planned for the week after that, but like then, the pre-
and post-meal pain did not let up.
She denies cough, hoarseness and any change of weight.
She denies chills.

PAST MEDICAL HISTORY
Hypertension
1. Gallstones, which had been seen by chance when the kidneys were
looked at two years ago
2. Asthma, well controlled with an inhaler that she seldom has to use
3. Gout
- a list item that is just as long as the lines of the paragraph was
- another one

Pertinent Results:
1/2/2030 10:25PM   GLUCOSE-109* UREA N-25* CREAT-0.3* SODIUM-138
POTASSIUM-3.4 CHLORIDE-105 TOTAL CO2-27 ANION GAP-9
WBC-8.2 RBC-3.60* Hgb-10.5* Hct-32.1* MCV-89 MCH-29.2 MCHC-32.8 RDW-1
Plt Ct-312
test            value     unit      low       high      remark here
sodium          138       mmol/L    133       145       none at all

    an indented block with lines which are about as long as the lines
    of the paragraphs above, such as a letter that was copied

Discharge Instructions:
Take the tablets with water in the morning and do not lie down for at
least half an hour. Call the clinic if the pain comes back, if you have
a fever or if the skin turns yellow.
"""


def documents(*texts: str, group: str | None = None) -> list[Record]:
    return [Document(text, group, "notes.csv", i + 2) for i, text in enumerate(texts)]


def outcomes(cleaning: Cleaning, *texts: str) -> list[str]:
    """Each text's new text, or why it was left out."""
    return [
        record.text if isinstance(record, Document) else record.reason
        for record in Cleaner(cleaning).apply(documents(*texts))
    ]


def prose(draw: random.Random, words: int) -> str:
    """Lower-case words of 2 to 10 letters, from which no two texts share five in a row."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    return " ".join("".join(draw.choices(letters, k=draw.randint(2, 10))) for _ in range(words))
