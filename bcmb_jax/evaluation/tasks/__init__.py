# SPDX-License-Identifier: Apache-2.0
"""Readers of labelled data, one short module a task: first the paper's, then open ones, then any.

Each reads the data as it is distributed. Where the paper's own reader has a quirk that its numbers
depend on, ours has it too, tagged `# Fidelity:` and told in `quirks`, and `corrected=True` is the
other reading. What cannot be read is an `InputError` with its file and line; what is left out or
odd is counted in the dataset's notes.
"""

from bcmb_jax.evaluation.examples import Task
from bcmb_jax.evaluation.tasks import (
    bc5cdr,
    chemprot,
    chemprot_scibert,
    conll,
    cos,
    deid,
    hoc_document,
    hoc_sentence,
    ncbi_disease,
    phenotype,
    pubmedqa,
    social_history,
    tables,
)

TASKS: dict[str, Task] = {
    module.TASK.name: module.TASK
    for module in (
        chemprot,
        phenotype,
        cos,
        social_history,
        deid,
        hoc_document,
        hoc_sentence,
        bc5cdr,
        ncbi_disease,
        pubmedqa,
        chemprot_scibert,
        conll,
        tables,
    )
}
