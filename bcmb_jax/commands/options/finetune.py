# SPDX-License-Identifier: Apache-2.0
"""Fine-tune a model on your own labels or entities, and keep it.

  bcmb finetune --data notes.csv --label-column dx --group-column patient --model MODEL --output DIR
  bcmb finetune --data annotated/ --model MODEL --output DIR
  bcmb predict --model DIR --input new_notes.csv --output predictions.csv

DATA is a table (csv, tsv, jsonl, Parquet) with a text and its label a row, or several labels joined
by ";"; or texts with annotated entities: a folder of brat's .txt and .ann, or files of conll,
Doccano, Label Studio, Prodigy or spaCy. One file is split 70/15/15 by group, a folder may hold
train, validation (or dev) and test. OUTPUT gets a folder that transformers reads too, with labels
by name, the tokenizer, a card, and results.json with the scores on validation and test.
"""

import argparse
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser
from bcmb_jax.commands.options.evaluate import PRECISIONS, numbers
from bcmb_jax.evaluation.tasks.annotations import FORMATS


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and check that they fit each other."""
    parser = Parser("bcmb finetune", description=__doc__)
    add = parser.add_argument_group("data").add_argument
    add("--data", required=True, type=Path, help="a file, or a folder")
    add("--format", choices=FORMATS, help="default: recognised by the content, and said")
    add("--text-column", help="of tables and JSON, unless it is called text, note, report, …")
    add("--label-column", help="of tables, unless it is called label or labels")
    add("--group-column", help="of what must stay in one split, such as the patient")
    add("--labels", help="a file that lists the labels; needed for many, rare or numbered ones")
    add("--license", default="", help="agreement of the data, which the model keeps")
    add = parser.add_argument_group("model").add_argument
    add("--model", required=True, help="folder, workdir, hub:OWNER/NAME or a start by name")
    add("--tokenizer", help="likewise (default: the model's)")
    hub.add_options(parser)
    add("--output", required=True, type=Path, help="a new folder")
    add("--overwrite", action="store_true", help="replace a model that was written there before")
    private.add_option(parser)
    add = parser.add_argument_group("training").add_argument
    add("--seeds", type=numbers(int), default=[42], help="several: the best is kept (default: 42)")
    add("--learning-rate", type=float, help="default: 5e-5, from a width of 1,024 on 3e-5")
    add("--epochs", type=int, default=10, help="at most (default: 10)")
    add("--patience", type=int, default=3, help="epochs without a better one; 0: all (default: 3)")
    add("--batch-size", type=int, default=16)
    add("--max-length", type=int, help="tokens of a text (default: all that the model reads)")
    add("--class-weights", choices=("balanced",), help="let rare labels of texts count as much")
    add("--precision", choices=PRECISIONS, default="", help="default: tf32 on a GPU, else fp32")
    options = parser.parse_args(arguments)
    if min(options.epochs, options.batch_size) < 1 or options.patience < 0:
        parser.error("--epochs and --batch-size begin at 1, --patience at 0")
    if options.learning_rate is not None and not 0 < options.learning_rate < 1:
        parser.error(f"--learning-rate {options.learning_rate:g} is not between 0 and 1")
    if not options.data.exists():
        parser.error(f"--data {options.data} does not exist")
    return options
