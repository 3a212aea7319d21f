# SPDX-License-Identifier: Apache-2.0
"""Readers of labelled data, one module for each layout of files.

Each reads the data as it is distributed. Where the paper's own reader has a quirk that its numbers
depend on, ours has it too, tagged `# Fidelity:` and described in `quirks`, and `corrected=True` is
the other reading. What cannot be read is an `InputError` with its file and line; what is left out
or odd is counted in the dataset's notes.
"""

from bcmb_jax.evaluation.examples import Task
from bcmb_jax.evaluation.tasks import (
    bio,
    brat,
    chemprot,
    deid,
    hoc,
    phenotype,
    pubmedqa,
    tables,
)

TASKS: dict[str, Task] = {
    task.name: task
    for task in (
        # The paper's tasks, in its order.
        chemprot.BLUE,
        phenotype.TASK,
        brat.COS,
        brat.SOCIAL_HISTORY,
        deid.TASK,
        # Open ones.
        hoc.DOCUMENTS,
        hoc.SENTENCES,
        bio.BC5CDR,
        bio.NCBI_DISEASE,
        pubmedqa.TASK,
        chemprot.SCIBERT,
        # The user's own files.
        bio.CONLL,
        tables.TASK,
    )
}
