# SPDX-License-Identifier: Apache-2.0
"""BC5CDR: chemicals and diseases in PubMed abstracts, as words with BIO tags."""

from functools import partial

from bcmb_jax.evaluation.examples import Task
from bcmb_jax.evaluation.tasks.bio import read_bio

TASK = Task(
    "bc5cdr",
    "tagging",
    partial(read_bio, kinds=("Chemical", "Disease")),
    "chemicals and diseases in PubMed abstracts",
    "BioCreative V CDR, in github.com/cambridgeltl/MTL-Bioinformatics-2016 (BC5CDR-IOB); CC BY 4.0",
    "train.tsv, devel.tsv and test.tsv: a word, a tab and its BIO tag a line",
)
