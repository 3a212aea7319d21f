# SPDX-License-Identifier: Apache-2.0
"""Readers of labelled data, one module for each layout of files; `tasks.toml` describes the tasks.

Each reads the data as it is distributed. Where the paper's own reader has a quirk that its numbers
depend on, ours has it too, tagged `# Fidelity:` and described in `quirks`, and `corrected=True` is
the other reading. What cannot be read is an `InputError` with its file and line; what is left out
or odd is counted in the dataset's notes.
"""

import tomllib
from collections.abc import Callable
from functools import partial
from importlib import resources

from bcmb_jax.evaluation.examples import Dataset, Task
from bcmb_jax.evaluation.published import LEARNING_RATES
from bcmb_jax.evaluation.tasks import (
    bio,
    brat,
    chemprot,
    concepts,
    ddi,
    deid,
    hoc,
    notes,
    pairs,
    phenotype,
    pubmedqa,
    tables,
)

_READERS: dict[str, Callable[..., Dataset]] = {
    "chemprot": chemprot.read_blue,
    "phenotype": phenotype.read,
    "cos": brat.read_cos,
    "social_history": brat.read_social_history,
    "deid": deid.read,
    "hoc_document": hoc.read_documents,
    "hoc_sentence": hoc.read_sentences,
    "bc5cdr": bio.read,
    "ncbi_disease": bio.read,
    "anatem": bio.read,
    "jnlpba": bio.read,
    "bc2gm": bio.read,
    "ddi_drugs": ddi.read,
    "pubmedqa": pubmedqa.read,
    "chemprot_scibert": chemprot.read_scibert,
    "i2b2_2006_deid": notes.read_2006,
    "i2b2_2006_smoking": notes.read_smoking,
    "i2b2_2012": notes.read_2012,
    "i2b2_2014_deid": notes.read_2014,
    "mednli": pairs.read_mednli,
    "i2b2_2010": concepts.read,
    "physionet_phi": deid.read_phrases,
    "conll": bio.read,
    "csv": tables.read,
}


def _load() -> dict[str, Task]:
    text = resources.files(__package__).joinpath("tasks.toml").read_text("utf-8")
    tasks = {}
    for name, values in tomllib.loads(text).items():
        classes = tuple(values.pop("classes", ()))
        read = partial(_READERS[name], classes=classes) if classes else _READERS[name]
        rates = LEARNING_RATES.get(name, {"base": 5e-5, "large": 3e-5})
        tasks[name] = Task(name, read=read, classes=classes, learning_rates=rates, **values)
    return tasks


TASKS = _load()
