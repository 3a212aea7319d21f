# SPDX-License-Identifier: Apache-2.0
"""Numbers of the paper's Tables 2, 3, 5 and 6 (BioClinical ModernBERT, arXiv 2506.10896)."""

from typing import NamedTuple

TASKS = ("chemprot", "phenotype", "cos", "social_history", "deid")
SIZES = ("base", "large")
SPEED_SETS = (
    "short fixed",
    "short variable",
    "medium fixed",
    "medium variable",
    "long fixed",
    "long variable",
)
SPEED_MACHINE = "A100 40GB"
SPEED_DOCUMENTS = "8,192 (its code: 4,096)"


class Model(NamedTuple):
    """A row of Tables 2 and 3.

    Attributes:
      context: the longest input, in tokens.
      scores: Table 2, in the order of `TASKS`: median F1 over 5 seeds in percent (weighted for the
        first two, seqeval's for the rest).
      speed: Table 3, in the order of `SPEED_SETS`, as far as the context reaches: thousands of
        tokens a second.
    """

    name: str
    size: str
    context: int
    scores: tuple[float | None, ...]
    speed: tuple[float, ...]


MODELS = (
    Model("BioBERT", "base", 512, (89.5, 26.6, 94.9, 55.8, 74.3), (98.1, 49.3)),
    Model("Clinical BERT", "base", 512, (88.3, 25.8, 95.0, 55.2, 74.2), (98.1, 49.3)),
    Model("BioMed-RoBERTa", "base", 512, (89.0, 36.8, 94.9, 55.2, 81.1), (97.4, 48.6)),
    Model(
        "Clinical-BigBird",
        "base",
        4096,
        (87.4, 26.5, 94.0, 53.3, 71.2),
        (71.5, 35.7, 50.1, 25.0),
    ),
    Model(
        "Clinical-Longformer",
        "base",
        4096,
        (74.2, 46.4, 95.2, 56.8, 82.3),
        (55.5, 27.8, 53.2, 26.6),
    ),
    Model(
        "Clinical ModernBERT",
        "base",
        8192,
        (86.9, 54.9, 93.7, 53.8, 44.4),
        (86.2, 43.1, 44.4, 19.8, 28.8, 12.3),
    ),
    Model(
        "ModernBERT base",
        "base",
        8192,
        (89.5, 48.4, 94.0, 53.1, 78.3),
        (76.2, 75.0, 73.8, 74.9, 71.1, 73.7),
    ),
    Model(
        "BioClinical ModernBERT base",
        "base",
        8192,
        (89.9, 58.1, 95.1, 58.5, 82.7),
        (76.2, 75.1, 73.8, 75.0, 71.1, 73.7),
    ),
    Model(
        "ModernBERT large",
        "large",
        8192,
        (90.2, 58.3, 94.4, 54.8, 82.1),
        (25.8, 26.5, 25.3, 25.6, 24.8, 25.2),
    ),
    Model(
        "BioClinical ModernBERT large",
        "large",
        8192,
        (90.8, 60.8, 95.1, 57.1, 83.8),
        (25.8, 26.5, 25.3, 25.6, 24.8, 25.2),
    ),
    # Of the text (§4.1), on ChemProt alone.
    Model("BioClinical ModernBERT base, phase 1", "base", 8192, (90.2, *(None,) * 4), ()),
    Model("BioClinical ModernBERT large, phase 1", "large", 8192, (90.5, *(None,) * 4), ()),
)

LEARNING_RATES = {
    "chemprot": {"base": 5e-5, "large": 2e-5},
    "phenotype": {"base": 8e-5, "large": 5e-5},
    "cos": {"base": 1e-4, "large": 1.5e-4},
    "social_history": {"base": 1.5e-4, "large": 2e-4},
    "deid": {"base": 7e-5, "large": 7e-5},
}
"""Table 5."""


class Statistics(NamedTuple):
    """A row of Table 6. Its token counts include `[CLS]` and `[SEP]`."""

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


def title(task: str) -> str:
    """A task's name in the paper, or ours."""
    titles = ("ChemProt", "Phenotype", "COS", "Social History", "DEID")
    return dict(zip(TASKS, titles, strict=True)).get(task, task)
