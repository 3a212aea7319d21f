# SPDX-License-Identifier: Apache-2.0
"""Numbers of the paper's Tables 2, 3, 5 and 6 (BioClinical ModernBERT, arXiv 2506.10896)."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

TASKS = {
    "chemprot": "ChemProt",
    "phenotype": "Phenotype",
    "cos": "COS",
    "social_history": "Social History",
    "deid": "DEID",
}
"""The paper's names of its tasks, in its order."""

SPEED_SETS = tuple(f"{x} {y}" for x in ("short", "medium", "long") for y in ("fixed", "variable"))
SPEED_MACHINE = "A100 40GB"
SPEED_DOCUMENTS = "8,192 (its code: 4,096)"

Values = Mapping[str, float | None]


def _rows(
    columns: Iterable[str], rows: Mapping[str, Sequence[float | None]]
) -> Mapping[str, Values]:
    return {name: dict(zip(columns, values, strict=False)) for name, values in rows.items()}


SCORES = _rows(
    TASKS,
    {
        "BioBERT": (89.5, 26.6, 94.9, 55.8, 74.3),
        "Clinical BERT": (88.3, 25.8, 95.0, 55.2, 74.2),
        "BioMed-RoBERTa": (89.0, 36.8, 94.9, 55.2, 81.1),
        "Clinical-BigBird": (87.4, 26.5, 94.0, 53.3, 71.2),
        "Clinical-Longformer": (74.2, 46.4, 95.2, 56.8, 82.3),
        "Clinical ModernBERT": (86.9, 54.9, 93.7, 53.8, 44.4),
        "ModernBERT base": (89.5, 48.4, 94.0, 53.1, 78.3),
        "BioClinical ModernBERT base": (89.9, 58.1, 95.1, 58.5, 82.7),
        "ModernBERT large": (90.2, 58.3, 94.4, 54.8, 82.1),
        "BioClinical ModernBERT large": (90.8, 60.8, 95.1, 57.1, 83.8),
        # From the text (§4.1), which has ChemProt alone.
        "BioClinical ModernBERT base, phase 1": (90.2, None, None, None, None),
        "BioClinical ModernBERT large, phase 1": (90.5, None, None, None, None),
    },
)
"""Table 2 by model and task: median F1 over 5 seeds in percent.

Weighted over classes for the first two tasks, seqeval's over entities for the rest.
"""

SPEEDS = _rows(
    SPEED_SETS,
    {
        "BioBERT": (98.1, 49.3),
        "Clinical BERT": (98.1, 49.3),
        "BioMed-RoBERTa": (97.4, 48.6),
        "Clinical-BigBird": (71.5, 35.7, 50.1, 25.0),
        "Clinical-Longformer": (55.5, 27.8, 53.2, 26.6),
        "Clinical ModernBERT": (86.2, 43.1, 44.4, 19.8, 28.8, 12.3),
        "ModernBERT base": (76.2, 75.0, 73.8, 74.9, 71.1, 73.7),
        "BioClinical ModernBERT base": (76.2, 75.1, 73.8, 75.0, 71.1, 73.7),
        "ModernBERT large": (25.8, 26.5, 25.3, 25.6, 24.8, 25.2),
        "BioClinical ModernBERT large": (25.8, 26.5, 25.3, 25.6, 24.8, 25.2),
    },
)
"""Table 3 by model and set of lengths, as far as the model reads: thousands of tokens a second."""

LEARNING_RATES = {
    "chemprot": {"base": 5e-5, "large": 2e-5},
    "phenotype": {"base": 8e-5, "large": 5e-5},
    "cos": {"base": 1e-4, "large": 1.5e-4},
    "social_history": {"base": 1.5e-4, "large": 2e-4},
    "deid": {"base": 7e-5, "large": 7e-5},
}
"""Table 5 by task and size of the model."""


class Statistics(NamedTuple):
    """A row of Table 6: counts by split; tokens include `[CLS]` and `[SEP]`."""

    labels: int
    examples: tuple[int, int, int]
    mean_tokens: tuple[float, float, float]


STATISTICS = {
    "chemprot": Statistics(6, (19460, 11820, 16943), (68.2, 67.7, 75.2)),
    "phenotype": Statistics(14, (1589, 227, 454), (3112.2, 3118.7, 3175.8)),
    "cos": Statistics(11, (705, 151, 152), (24.5, 24.0, 23.4)),
    "social_history": Statistics(51, (254, 55, 55), (55.9, 57.0, 44.9)),
    "deid": Statistics(13, (1703, 365, 366), (276.6, 270.0, 281.5)),
}
"""Table 6 by task."""


def title(task: str) -> str:
    """Return a task's name in the paper, or ours."""
    return TASKS.get(task, task)
