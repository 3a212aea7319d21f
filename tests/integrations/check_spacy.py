# SPDX-License-Identifier: Apache-2.0
"""spaCy beside this package: its files are read, and a tagger is a part of its pipelines."""

import json
import shutil
from pathlib import Path

import spacy
from comparison import Comparison
from spacy.tokens import DocBin
from spacy.util import filter_spans
from spacy_entities import compare_entities

from bcmb_jax.commands import main as bcmb
from bcmb_jax.evaluation.tasks import annotations


def write_annotated(folder: Path) -> None:
    """Write the annotated notes as spaCy does, and the same entities as Doccano does."""
    nlp, docs, lines = spacy.blank("en"), [], []
    for line in Path("annotated.jsonl").read_text().splitlines():
        record = json.loads(line)
        doc = nlp(record["text"])
        spans = [doc.char_span(*x, alignment_mode="expand") for x in record["label"]]
        doc.ents = filter_spans(spans)
        doc.spans["candidates"] = doc.ents[:1]  # which are no entities, and left out
        docs.append(doc)
        label = [[x.start_char, x.end_char, x.label_] for x in doc.ents]
        lines.append(json.dumps({"text": doc.text, "label": label}) + "\n")
    DocBin(docs=docs, store_user_data=True).to_disk(folder / "all.spacy")
    (folder / "all.jsonl").write_text("".join(lines))
    for number, split in enumerate(("train", "dev", "test")):
        for file in (folder / "spacy", folder / "doccano"):
            file.mkdir(exist_ok=True)
        DocBin(docs=docs[number::3]).to_disk(folder / f"spacy/{split}.spacy")
        (folder / f"doccano/{split}.jsonl").write_text("".join(lines[number::3]))


def main() -> None:
    """Compare what is read from files, and the entities of a pipeline."""
    compare = Comparison("spacy", "jax", "numpy")
    folder = compare.exports.parent / "spacy-files"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_annotated(folder)
    for spacys, doccanos in (("all.spacy", "all.jsonl"), ("spacy", "doccano")):
        read = annotations.read(folder / spacys, "spacy")
        wanted = annotations.read(folder / doccanos, "doccano")
        for split, examples in wanted.splits.items():
            ours = [(x.text, x.labels) for x in examples]
            found = [(x.text, x.labels) for x in read.splits[split]]
            what = f"{split}: words and tags, as from Doccano's jsonl"
            compare.equal(f"DocBin ({spacys})", what, found, ours)
    short = ("--epochs", "1", "--learning-rate", "1e-3", "--license", "made up", "--overwrite")
    start = ("--model", "my-tagger", "--data", str(folder / "all.spacy"))
    tuned = folder / "tuned"
    bcmb("finetune", *start, "--output", str(tuned), *short)
    names = json.loads((tuned / "config.json").read_text())["id2label"].values()
    tags = annotations.read(folder / "all.jsonl", "doccano").labels
    compare.equal("DocBin (all.spacy)", "bcmb finetune, tags of the model", names, tags)
    compare_entities(compare, compare.snippet("spaCy, beside this package")["nlp"])
    compare.finish()


if __name__ == "__main__":
    main()
