# SPDX-License-Identifier: Apache-2.0
"""Predict labels, or entities with their offsets, for a table or a folder of texts.

  bcmb predict --model MODEL --input notes.csv --text-column note --output predictions.csv
  bcmb predict --model MODEL --input notes/ --output annotated --output-format brat --with-text

MODEL is a classifier or a tagger, as bcmb finetune makes them. INPUT is a csv, tsv, jsonl or
Parquet, or a folder of .txt. Rows are numbered from 1 on; of the texts nothing is written unless it
is asked for. csv has a line for each label or entity, with probabilities and offsets in characters;
jsonl has a line for each row; brat is a folder of .ann; omop has the columns of NOTE_NLP. A command
that was stopped goes on where it was when it is given again.
"""

import argparse
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser
from bcmb_jax.commands.options.evaluate import PRECISIONS

FORMATS = ("csv", "jsonl", "brat", "omop")
BY_SUFFIX = {".csv": "csv", ".jsonl": "jsonl", ".ann": "brat"}
AGGREGATIONS = ("first", "simple")


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and tell the format of the output."""
    parser = Parser("bcmb predict", description=__doc__)
    add_input(parser)
    add = parser.add_argument
    add("--output", required=True, type=Path, help="a new FILE.csv or FILE.jsonl, FOLDER.ann, …")
    add("--output-format", choices=FORMATS, help="default: by the suffix of OUTPUT")
    add("--with-text", action="store_true", help="write the words of entities, or the texts, too")
    add("--aggregation", choices=AGGREGATIONS, default="first", help="simple: tags of tokens")
    private.add_option(parser)
    options = parser.parse_args(arguments)
    options.output_format = options.output_format or BY_SUFFIX.get(options.output.suffix.lower())
    if not options.output_format:
        parser.error(f"name an --output-format: {options.output} is no .csv, .jsonl or .ann")
    check_input(parser, options)
    return options


def add_input(parser: Parser) -> None:
    """Add what names the model and the texts."""
    add = parser.add_argument
    add("--model", required=True, help="folder, workdir, hub:OWNER/NAME or a start by name")
    hub.add_options(parser)
    add("--precision", choices=PRECISIONS, default="", help="default: fp32")
    add("--input", required=True, type=Path, help="csv, tsv, jsonl, Parquet, or a folder of .txt")
    add("--text-column", help="unless it is called text, note, report, …")
    add("--id-column", help="write its values too; 'file' of a folder: the names of its files")


def check_input(parser: Parser, options: argparse.Namespace) -> None:
    """Refuse an input that is not there, and an output that is."""
    if not options.input.exists():
        parser.error(f"--input {options.input} does not exist")
    if options.output.exists():
        parser.error(f"--output {options.output} exists: give another, or remove it")
