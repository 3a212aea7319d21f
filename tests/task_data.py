# SPDX-License-Identifier: Apache-2.0
"""Made-up sentences to classify and to tag, in the layouts of the tasks `csv` and `conll`."""

import csv
import random
from pathlib import Path

FINDINGS = {
    "pain": ("chest pain", "knee pain", "a dull ache in the back", "headache"),
    "cough": ("a dry cough", "coughing at night", "productive cough"),
    "rash": ("a red rash", "itching of the arms", "a rash on the trunk"),
}
OPENINGS = ("The patient reports", "She came in with", "He has had", "There was", "No sign but")
ENDINGS = ("for two days.", "since last week, after a long walk in the cold.", "today.", "again.")


def clinical_sentences(folder: Path, layout: str, *, train: int, held_out: int) -> Path:
    """`folder` with the splits train, dev and test; the same every time."""
    random_ = random.Random(0)
    folder.mkdir(parents=True)
    for split, count in (("train", train), ("dev", held_out), ("test", held_out)):
        sentences = [_sentence(random_) for _ in range(count)]
        (_write_csv if layout == "csv" else _write_bio)(folder, split, sentences)
    return folder


def _sentence(random_: random.Random) -> tuple[str, str, str, str]:
    label = random_.choice(sorted(FINDINGS))
    finding = random_.choice(FINDINGS[label])
    return label, random_.choice(OPENINGS), finding, random_.choice(ENDINGS)


def _write_csv(folder: Path, split: str, sentences: list) -> None:
    with (folder / f"{split}.csv").open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(("text", "label"))
        rows.writerows((" ".join(parts), label) for label, *parts in sentences)


def _write_bio(folder: Path, split: str, sentences: list) -> None:
    lines = []
    for label, opening, finding, ending in sentences:
        lines += [f"{word}\tO" for word in opening.split()]
        tags = [f"B-{label}"] + [f"I-{label}"] * len(finding.split())
        lines += [f"{word}\t{tag}" for word, tag in zip(finding.split(), tags, strict=False)]
        lines += [f"{word}\tO" for word in ending.split()] + [""]
    (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
