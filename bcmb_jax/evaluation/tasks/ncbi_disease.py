# SPDX-License-Identifier: Apache-2.0
"""NCBI-disease: diseases in PubMed abstracts, as words with BIO tags."""

from functools import partial

from bcmb_jax.evaluation.examples import Task
from bcmb_jax.evaluation.tasks.bio import read_bio

TASK = Task(
    "ncbi_disease",
    "tagging",
    partial(read_bio, kinds=("Disease",)),
    "diseases in PubMed abstracts",
    "NCBI disease corpus, in github.com/cambridgeltl/MTL-Bioinformatics-2016 (NCBI-disease-IOB); "
    "CC BY 4.0",
    "train.tsv, devel.tsv and test.tsv: a word, a tab and its BIO tag a line",
)
