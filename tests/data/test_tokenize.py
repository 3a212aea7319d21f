# SPDX-License-Identifier: Apache-2.0
"""Tokenizers: what is loaded, what identifies it, and what never happens to a text."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors

from bcmb_jax.data import tokenize
from bcmb_jax.data.tokenize import SpecialTokens, Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError

NAMES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused0]", "blood", "pressure", "high"]
SPECIAL = SpecialTokens(cls=2, sep=3, pad=0, mask=4, unk=1)
ROLES = ("cls", "sep", "pad", "mask", "unk")


def tiny_backend(names: list[str] = NAMES) -> tokenizers.Tokenizer:
    vocabulary = {name: index for index, name in enumerate(names)}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    backend.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    backend.add_special_tokens(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"])
    return backend


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Tokenizer(tiny_backend(), SPECIAL).save(tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="module")
def modernbert(shared: Path) -> Tokenizer:
    return load_tokenizer(str(shared / "data/tokenizers/modernbert"))


def test_a_saved_folder_loads_as_the_same_tokenizer(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.special == SPECIAL
    assert tokenizer.vocab_size == len(NAMES)
    assert tokenizer.directory == folder
    assert tokenizer.fingerprint == Tokenizer(tiny_backend(), SPECIAL).fingerprint
    tokenizer.save(folder.with_name("copy"))
    assert load_tokenizer(str(folder.with_name("copy"))).fingerprint == tokenizer.fingerprint


def test_a_huge_text_is_cut_between_words_and_has_the_same_tokens(tiny_tokenizer, monkeypatch):
    tokenizer = load_tokenizer(str(tiny_tokenizer))
    texts = ["the left  lung\n is clear " * 30, "lung" * 100, " ", "", "a stroke", "\n " * 90]
    whole = tokenizer.encode_batch(texts)
    monkeypatch.setattr(tokenize, "_PIECE", 100)
    cut: list[int] = []
    encode = tokenizer._backend.encode_batch_fast

    class Watched:
        def encode_batch_fast(self, texts: list[str], **options: bool) -> list[tokenizers.Encoding]:
            cut.extend(map(len, texts))
            return encode(texts, **options)

    monkeypatch.setattr(tokenizer, "_backend", Watched())
    found = tokenizer.encode_batch(texts)
    assert max(cut) <= 100
    for text, before, after in zip(texts, whole, found, strict=True):
        assert after.dtype == np.int32
        if text[:4] != "lung":  # has no place between words
            assert after.tolist() == before.tolist()


def test_texts_are_neither_cut_nor_padded_nor_wrapped(folder: Path) -> None:
    backend = tiny_backend()
    backend.enable_truncation(2)
    backend.enable_padding(length=8)
    backend.save(str(folder / "tokenizer.json"))
    ids = load_tokenizer(str(folder)).encode_batch(["high blood pressure", "", "blood"])
    assert [array.tolist() for array in ids] == [[8, 6, 7], [], [6]]
    assert {array.dtype for array in ids} == {np.dtype(np.int32)}


def test_special_tokens_written_in_a_text_stay_text(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    [ids] = tokenizer.encode_batch(["[MASK]blood [SEP]x"])
    assert ids.tolist() == [1, 1]


def test_ordinary_ids_leave_out_special_and_unused_entries(folder: Path) -> None:
    ordinary = load_tokenizer(str(folder)).ordinary_ids
    assert ordinary.tolist() == [6, 7, 8]
    assert ordinary.dtype == np.int32


def test_ids_go_back_to_text(folder: Path) -> None:
    tokenizer = load_tokenizer(str(folder))
    assert tokenizer.decode(np.array([2, 8, 6, 3])) == "[CLS] high blood [SEP]"
    assert tokenizer.token(7) == "pressure"
    with pytest.raises(ValueError, match=r"id 9 .* 9"):
        tokenizer.token(9)


def test_fingerprint_ignores_how_the_file_is_written(folder: Path) -> None:
    before = load_tokenizer(str(folder)).fingerprint
    file = folder / "tokenizer.json"
    content = json.loads(file.read_text())
    content["model"]["vocab"] = dict(reversed(content["model"]["vocab"].items()))
    file.write_text(json.dumps(content))
    assert load_tokenizer(str(folder)).fingerprint == before


def test_fingerprint_changes_with_vocabulary_special_ids_and_rules() -> None:
    swapped = [*NAMES[:-2], NAMES[-1], NAMES[-2]]
    other_rules = tiny_backend()
    other_rules.pre_tokenizer = pre_tokenizers.Whitespace()
    fingerprints = {
        Tokenizer(tiny_backend(), SPECIAL).fingerprint,
        Tokenizer(tiny_backend(swapped), SPECIAL).fingerprint,
        Tokenizer(tiny_backend(), replace(SPECIAL, mask=5)).fingerprint,
        Tokenizer(other_rules, SPECIAL).fingerprint,
    }
    assert len(fingerprints) == 4


def test_special_tokens_may_be_named_in_the_config(folder: Path) -> None:
    (folder / "special_tokens_map.json").unlink()
    config = {f"{role}_token": {"content": f"[{role.upper()}]"} for role in ROLES}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    assert load_tokenizer(str(folder)).special == SPECIAL


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("value", [None, "[NOT THERE]"])
def test_a_missing_special_token_is_named(folder: Path, role: str, value: str | None) -> None:
    file = folder / "special_tokens_map.json"
    names = json.loads(file.read_text())
    file.write_text(json.dumps({**names, f"{role}_token": value}))
    with pytest.raises(InputError, match=f"the {role}_token"):
        load_tokenizer(str(folder))


def test_a_folder_that_is_no_tokenizer_is_refused(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{")
    with pytest.raises(InputError, match="not readable"):
        load_tokenizer(str(folder))
    (folder / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"no tokenizer.json"):
        load_tokenizer(str(folder))
    with pytest.raises(InputError, match="does not exist"):
        load_tokenizer(str(folder / "missing"))


def test_modernbert(modernbert: Tokenizer) -> None:
    assert modernbert.special == SpecialTokens(
        cls=50281, sep=50282, pad=50283, mask=50284, unk=50280
    )
    assert modernbert.vocab_size == 50368
    text = "Pt c/o SOB x3 days; naïve T-cells ≥ 5 %.\n\n"
    [ids] = modernbert.encode_batch([text])
    assert modernbert.decode(ids) == text
    unordinary = set(range(50368)) - set(modernbert.ordinary_ids.tolist())
    # <|padding|>, <|endoftext|>, the five and [unused0] .. [unused82]
    assert unordinary == {1, *range(50279, 50368)}


def test_normalizers_count_too() -> None:
    lower = tiny_backend()
    lower.normalizer = normalizers.Replace("BP", "blood")
    plain = Tokenizer(tiny_backend(), SPECIAL).fingerprint
    assert Tokenizer(lower, SPECIAL).fingerprint != plain
