# SPDX-License-Identifier: Apache-2.0
"""Write small models as every export, and our own outputs of them, for other programs to compare.

python tests/integrations/write_exports.py FOLDER

All is made by the commands of a user: a tagger and a classifier are fine-tuned on made-up notes,
then every model is converted. `expected.json` and `expected.npz` hold what we make of the texts.
"""

import json
import random
import sys
from pathlib import Path

import jax
import numpy as np

import conversion
from bcmb_jax.agreements import Agreement
from bcmb_jax.commands import main as bcmb
from bcmb_jax.data.synthetic import synthetic_notes, train_tokenizer
from bcmb_jax.inference.entities import WORD
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion.export import write_huggingface
from conversion.mapping import Weights, table

# Rows are longer than a local layer's window, and two layers are global.
SIZES = ModelConfig(
    vocab_size=1200,
    hidden_size=64,
    num_hidden_layers=4,
    num_attention_heads=4,
    intermediate_size=96,
    max_position_embeddings=1024,
)
PHRASES = {
    "Drug": ("aspirin", "warfarin", "heparin", "metformin", "IL-6 blocker", "β-blocker"),
    "Dose": ("81 mg", "5 mg", "500mg b.i.d.", "2 units", "0.5 ml"),
    "Problem": ("chest pain", "atrial fibrillation", "pneumonia", "type 2 diabetes"),
}
SENTENCES = (
    "Started on {Drug} {Dose} for {Problem}.",
    "Denies {Problem}.",
    "Continue {Drug} ({Dose}); no {Problem}.",
    "Pt. w/ {Problem}, on {Drug}.",
    "The left lung is clear.",
    "{Problem} resolved,  {Drug} stopped.",
)
HARD = (
    "a",
    "Pt. w/ IL-6 (3.5 mg) q.d.;\nnai\u0308ve β-blocker,  b.i.d.",
    "\tType 2 diabetes:\r\n  (metformin) 500mg",
)
MASKED = ("The [MASK] lung is clear.", "Denies [MASK] pain, on [MASK].")
Spans = list[tuple[int, int, str]]


def note(draw: random.Random, sentences: int) -> tuple[str, Spans]:
    """Return a made-up note and its entities."""
    text, spans = "", Spans()
    for _ in range(sentences):
        for i, part in enumerate(draw.choice(SENTENCES).replace("{", "}").split("}")):
            word = draw.choice(PHRASES[part]) if i % 2 else part
            spans += [(len(text), len(text) + len(word), part)] if i % 2 else []
            text += word
        text += draw.choice([" ", "\n", "\n\n"])
    return text.rstrip(), spans


def write_data(folder: Path, tagger: list[tuple[str, Spans]]) -> None:
    """Write the notes as Doccano's jsonl, and as a table of two labels."""
    records = [{"text": text, "label": spans} for text, spans in tagger]
    (folder / "annotated.jsonl").write_text("".join(json.dumps(x) + "\n" for x in records))
    rows = [{"text": t, "label": "pain" if "chest pain" in t else "none"} for t, _ in tagger]
    (folder / "labelled.jsonl").write_text("".join(json.dumps(x) + "\n" for x in rows))


def write_models(folder: Path, texts: list[str]) -> None:
    """Write a masked LM with random weights, and fine-tune it to a tagger and a classifier."""
    # As in ModernBERT's vocabulary, characters after a space are tokens: where a space is a token
    # of its own, transformers' pipeline takes what follows it for another word.
    characters = [f" {x}" * 99 for x in sorted({*"".join(texts)} - {" "})]
    notes = [x.text for x in synthetic_notes(60, seed=0)]
    train_tokenizer([*texts, *notes, *characters], SIZES.vocab_size, folder / "tokenizer")
    rng = np.random.default_rng(0)

    def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.endswith("norm.weight"):
            return np.ones(shape, np.float32)
        scale = 1.0 if "tok_embeddings" in name else shape[-1] ** -0.5
        return rng.standard_normal(shape, np.float32) * np.float32(scale)

    params = {row.name: draw(row.name, row.shape) for row in table(SIZES, Head())}
    model = folder / "notes-modernbert"
    model.mkdir()
    ids: dict[str, int | None] = {}
    known = (Agreement("random weights", "none needed"),)
    weights = Weights(SIZES, params, ids, folder / "tokenizer", "random", agreements=known)
    write_huggingface(weights, model, model.name)
    given = ("--model", str(model), "--license", "made up", "--epochs", "8", "--patience", "0")
    given += ("--learning-rate", "1e-3")
    for data, name in (("annotated", "my-tagger"), ("labelled", "my-classifier")):
        file, output = folder / f"{data}.jsonl", folder / name
        bcmb("finetune", "--data", str(file), "--output", str(output), *given)
    encoder = conversion.from_pretrained(model, head="encoder", precision="fp32")
    conversion.save_pretrained(encoder, folder / "my-encoder")


def convert(folder: Path) -> None:
    """Convert each model to what other programs load."""

    def to(model: str, name: str, *options: str) -> None:
        source, output = str(folder / model), str(folder / name)
        bcmb("convert", "--input", source, "--output", output, "--license", "made up", *options)

    for pooling in ("mean", "cls"):
        options = ("--to", "sentence-transformers", "--pooling", pooling)
        to("my-encoder", f"my-vectors-{pooling}", *options)
    for model in ("notes-modernbert", "my-encoder", "my-tagger", "my-classifier"):
        to(model, f"{model}-onnx", "--to", "onnx")
        to(model, f"{model}-int8", "--to", "onnx", "--dtype", "int8")


def expect(folder: Path, texts: list[str]) -> None:
    """Write our outputs of the texts, and of each model's tokens of them in one padded batch."""

    def load(name: str) -> conversion.PretrainedModel:
        return conversion.from_pretrained(folder / name, head=None, precision="fp32")

    masked_lm, encoder = load("notes-modernbert"), load("my-encoder")
    tagger, classifier = load("my-tagger"), load("my-classifier")
    results = {
        "texts": texts,
        "word": WORD.pattern,
        "masked": MASKED,
        "fill_mask": masked_lm.fill_mask(MASKED),
        "classify": classifier.classify(texts),
        "tag": tagger.tag(texts),
        "tag_simple": tagger.tag(texts, "simple"),
    }
    found = {e.label for entities in results["tag"] for e in entities}
    if found != set(PHRASES):
        raise SystemExit(f"the tagger learned {sorted(found)} only: the comparison shows nothing")
    (folder / "expected.json").write_text(json.dumps(results, indent=1))
    models = {"notes-modernbert": masked_lm, "my-encoder": encoder}
    models |= {"my-tagger": tagger, "my-classifier": classifier}
    arrays = {"mean": encoder.encode(texts), "cls": encoder.encode(texts, "cls")}
    for name, model in models.items():  # fine-tuned ones put a space before the first word
        ids, mask = padded(model, texts)
        arrays |= {f"{name} ids": ids, name: np.asarray(model(ids, mask))}
        arrays |= {"mask": mask} if name == "my-encoder" else {}
    np.savez(folder / "expected.npz", **arrays)


def padded(model: conversion.PretrainedModel, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Return the token ids of texts and where they are, `[texts, longest]` each."""
    special = model.tokenizer.special
    rows = [[special.cls, *ids, special.sep] for ids in model.tokenizer.encode_batch(texts)]
    ids = np.full((len(rows), max(map(len, rows))), special.pad)
    mask = np.zeros_like(ids)
    for i, row in enumerate(rows):
        ids[i, : len(row)], mask[i, : len(row)] = row, 1
    return ids, mask


def main(folder: Path) -> None:
    """Write everything into a folder that is new or empty."""
    jax.config.update("jax_platforms", "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    draw = random.Random(0)
    tagger = [note(draw, 2 + i % 5) for i in range(160)]
    texts = [*HARD, *(note(draw, 4)[0] for _ in range(8)), note(draw, 60)[0]]
    write_data(folder, tagger)
    write_models(folder, [*texts, *(text for text, _ in tagger)])
    convert(folder)
    expect(folder, texts)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
