# SPDX-License-Identifier: Apache-2.0
"""Names and numbers are found in tokens, whatever the tokenizer, and common words are not."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tokenizers

from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.evaluation.identifiers import FEW, find_identifiers

TRAIN = [
    "Mrs Quuxley, Unit No 7712345. Quuxley has pain. The Patient is well.",
    "Phone 555-0199. Ward Northwing. the patient sleeps. 7712346 or 77123467.",
]
HELD_OUT = ["Mr Zornak, seen by Northwing, 20 mg, Unit 8812345.", "No identifier 1234 in this."]


@pytest.fixture(scope="module")
def word_piece(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("wordpiece")
    backend = tokenizers.BertWordPieceTokenizer(lowercase=False)
    backend.train_from_iterator([*TRAIN, *HELD_OUT] * 3, vocab_size=110, show_progress=False)
    backend.save(str(folder / "tokenizer.json"))
    names = {f"{x}_token": f"[{x.upper()}]" for x in ("cls", "sep", "pad", "mask", "unk")}
    (folder / "special_tokens_map.json").write_text(str(names).replace("'", '"'))
    return folder


def found(
    tokenizer: Tokenizer, train: Sequence[str], held_out: Sequence[str], *leave_out: str
) -> dict[tuple[str, str], list[tuple[int, list[str]]]]:
    """Return the identifiers as text again, for each place where they stand."""
    splits = {"training": tokenizer.encode_batch([*train])}
    splits["held out"] = tokenizer.encode_batch([*held_out])
    identifiers = find_identifiers(tokenizer, splits, leave_out)
    return {
        key: [
            (i, [tokenizer.decode(splits[key[1]][i][place]).replace(" ", "") for place in places])
            for i, places in some
        ]
        for key, some in identifiers.items()
    }


@pytest.mark.parametrize("kind", ["bytes", "word pieces"])
def test_the_first_of_each_kind_in_a_document_with_all_its_places(
    tiny_tokenizer, word_piece, kind
) -> None:
    tokenizer = load_tokenizer(str(tiny_tokenizer if kind == "bytes" else word_piece))
    # Not "Patient", which is written small elsewhere, nor "Northwing", which is in both splits.
    assert found(tokenizer, TRAIN, HELD_OUT) == {
        ("names", "training"): [(0, ["Quuxley", "Quuxley"]), (1, ["Phone"])],
        ("names", "held out"): [(0, ["Zornak"])],
        ("numbers", "training"): [(0, ["7712345"]), (1, ["7712346"])],
        ("numbers", "held out"): [(0, ["8812345"])],
    }


def test_what_is_left_out_and_what_many_documents_have_is_none(tiny_tokenizer) -> None:
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    left = found(tokenizer, TRAIN, HELD_OUT, "Quuxley", "7712345")
    assert left["names", "training"] == [(1, ["Phone"])]
    assert left["numbers", "training"] == [(1, ["7712346"])]
    for count, kept in ((FEW, FEW), (FEW + 1, 0)):
        notes = found(tokenizer, ["seen in Foobarton"] * count, [])
        assert len(notes["names", "training"]) == kept


def test_letters_of_several_bytes_shift_nothing(tiny_tokenizer) -> None:
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    (name,) = found(tokenizer, ["37 °C – Müller und Quuxley"], [])["names", "training"]
    assert name == (0, ["Quuxley"])
    assert np.concatenate(tokenizer.encode_batch(["°"])).size > 1
