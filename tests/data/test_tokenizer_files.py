# SPDX-License-Identifier: Apache-2.0
"""A text has the same ids whatever a tokenizer.json says about padding or special tokens."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers

from bcmb_jax.data.synthetic import train_tokenizer
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer, open_backend, with_word_space
from bcmb_jax.errors import InputError
from conversion.export import write_tokenizer
from tests.fixtures.tiny_weights import random_weights

TEXT = "the left lung is clear"
BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
BARE_BYTES = {**BYTES, "use_regex": False}
DIGITS = {"type": "Digits", "individual_digits": True}
SPLIT = {
    "type": "Split",
    "pattern": {"Regex": r" ?\p{L}+| ?[^\s\p{L}]+|\s+"},
    "behavior": "Isolated",
    "invert": False,
}


def sequence(*steps: dict[str, Any], key: str = "pretokenizers") -> dict[str, Any]:
    return {"type": "Sequence", key: list(steps)}


NO_FRAME = {
    "none": None,
    "bytes": BYTES,
    "bytes in a sequence": sequence(BYTES, key="processors"),
    "a template without special tokens": {
        "type": "TemplateProcessing",
        "single": [{"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": x, "type_id": 0}} for x in "AB"],
        "special_tokens": {},
    },
}
FILLED = {
    "strategy": {"Fixed": 32},
    "direction": "Right",
    "pad_to_multiple_of": None,
    "pad_id": 277,
    "pad_type_id": 0,
    "pad_token": "[PAD]",
}
CUT = {"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"}
STORED = {
    "fixed": {"padding": FILLED},
    "left": {"padding": {**FILLED, "direction": "Left"}},
    "multiple": {
        "padding": {**FILLED, "strategy": "BatchLongest", "pad_to_multiple_of": 8},
    },
    "cut": {"truncation": CUT},
    "cut on the left and filled": {
        "padding": FILLED,
        "truncation": {**CUT, "direction": "Left"},
    },
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("trained") / "tokenizer"
    train_tokenizer([TEXT, "a stroke of the left artery"], 290, folder)
    return folder


@pytest.fixture
def changed(trained: Path, tmp_path: Path) -> Callable[..., Path]:
    """`changed(padding=…)` is a folder whose tokenizer.json has other values under these keys."""

    def change(**values: Any) -> Path:
        folder = tmp_path / "changed"
        load_tokenizer(str(trained)).save(folder)
        file = folder / "tokenizer.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
        return folder

    return change


def framed(tokenizer: Tokenizer, text: str) -> list[int]:
    return [
        tokenizer.special.cls,
        *tokenizer.encode_batch([text])[0].tolist(),
        tokenizer.special.sep,
    ]


def exported(folder: Path, output: Path) -> str:
    """The folder that an export of a model writes for its tokenizer."""
    config = random_weights().config
    write_tokenizer(folder, output, config)
    return str(output)


@pytest.mark.parametrize("processor", NO_FRAME)
def test_a_text_is_framed_without_a_post_processor(changed, tmp_path, processor) -> None:
    folder = changed(post_processor=NO_FRAME[processor])
    tokenizer = load_tokenizer(str(folder))
    wanted = framed(tokenizer, TEXT)
    assert len(tokenizer.encode_batch([TEXT])[0]) == len(wanted) - 2
    assert tokenizer.encode_marked([TEXT])[0].tolist() == wanted
    assert open_backend(folder).encode(TEXT).ids == wanted
    written = exported(folder, tmp_path / "exported")
    assert tokenizers.Tokenizer.from_file(f"{written}/tokenizer.json").encode(TEXT).ids == wanted
    assert load_tokenizer(written).fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("processor", ["none", "bytes"])
def test_transformers_frames_what_we_export(changed, tmp_path, processor) -> None:
    transformers = pytest.importorskip("transformers")
    folder = changed(post_processor=NO_FRAME[processor])
    theirs = transformers.AutoTokenizer.from_pretrained(exported(folder, tmp_path / "exported"))
    ours = load_tokenizer(str(folder))
    assert theirs(TEXT)["input_ids"] == framed(ours, TEXT)
    pair = theirs("a", "b")["input_ids"]
    assert [pair.count(i) for i in (ours.special.cls, ours.special.sep)] == [1, 2]


@pytest.mark.parametrize("stored", STORED)
def test_stored_padding_and_truncation_are_off(changed, trained, tmp_path, stored) -> None:
    folder, plain = changed(**STORED[stored]), load_tokenizer(str(trained))
    tokenizer = load_tokenizer(str(folder))
    texts = [TEXT, "a [MASK] stroke"]
    for ids, wanted in zip(tokenizer.encode_marked(texts), plain.encode_marked(texts), strict=True):
        assert np.array_equal(ids, wanted)
    assert open_backend(folder).encode(TEXT).ids == framed(plain, TEXT)
    written = exported(folder, tmp_path / "exported")
    again = tokenizers.Tokenizer.from_file(f"{written}/tokenizer.json")
    assert (again.padding, again.truncation) == (None, None)
    assert again.encode(TEXT).ids == framed(plain, TEXT)


def test_a_file_that_needs_no_change_is_copied_as_it_is(trained, tmp_path) -> None:
    exported(trained, tmp_path / "exported")
    written = (tmp_path / "exported/tokenizer.json").read_bytes()
    assert written == (trained / "tokenizer.json").read_bytes()


@pytest.mark.parametrize(
    ("before", "after"), [(["[CLS]"], []), ([], ["[SEP]"]), (["[SEP]"], ["[CLS]"])]
)
def test_another_frame_than_that_of_training_is_refused(changed, before, after) -> None:
    pieces = [{"SpecialToken": {"id": x, "type_id": 0}} for x in before]
    pieces += [{"Sequence": {"id": "A", "type_id": 0}}]
    pieces += [{"SpecialToken": {"id": x, "type_id": 0}} for x in after]
    ids = {"[CLS]": 286, "[SEP]": 287}
    template = {
        "type": "TemplateProcessing",
        "single": pieces,
        "pair": [*pieces, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {x: {"id": x, "ids": [ids[x]], "tokens": [x]} for x in before + after},
    }
    with pytest.raises(InputError, match="post_processor puts other tokens around a text"):
        load_tokenizer(str(changed(post_processor=template)))


@pytest.mark.parametrize(
    "steps",
    [
        BYTES,
        sequence(BYTES),
        sequence(sequence(BYTES), DIGITS),
        sequence(DIGITS, BYTES),
        sequence(SPLIT, BARE_BYTES),
        sequence(sequence(DIGITS, SPLIT), sequence(BARE_BYTES)),
    ],
)
def test_a_word_gets_its_space_whatever_the_pre_tokenizer_is(changed, steps) -> None:
    backend = open_backend(changed(pre_tokenizer=steps))
    spaced, before = with_word_space(backend)
    words = ["the", "left", "lung"]
    running = backend.encode(" the left lung", add_special_tokens=False).ids
    alone = spaced.encode([before + w for w in words], is_pretokenized=True)
    assert alone.ids[1:-1] == running
    assert alone.word_ids[1:-1][0] == 0
    assert spaced.encode(before + "the left lung", add_special_tokens=False).ids == running
    assert backend.encode("the", add_special_tokens=False).ids != running[:1]


def test_a_word_of_a_tokenizer_without_bytes_stays_as_it_is(changed) -> None:
    backend = open_backend(changed(pre_tokenizer={"type": "Whitespace"}))
    spaced, before = with_word_space(backend)
    assert before == ""
    assert spaced.to_str() == backend.to_str()


def test_the_tokenizers_that_failed(shared: Path, tmp_path: Path) -> None:
    cases = shared / "cases"
    if not cases.is_dir():
        pytest.skip("needs the folder of cases beside the checkout")
    for kind in ("none", "bytelevel"):
        folder = cases / "15-tokenizer-no-postprocessor" / kind / "tokenizer"
        tokenizer = load_tokenizer(str(folder))
        ids = open_backend(folder).encode("Patient is stable.").ids
        assert ids == framed(tokenizer, "Patient is stable.")
        tokenizer.save(tmp_path / kind)
        file = str(tmp_path / kind / "tokenizer.json")
        assert tokenizers.Tokenizer.from_file(file).encode("Patient is stable.").ids == ids
    rows = []
    for folder in sorted((cases / "26-tokenizer-padding").glob("*/")):
        rows += load_tokenizer(str(folder)).encode_marked(["The patient has [MASK] pain."])
    assert len(rows) == 4
    assert all(np.array_equal(row, rows[0]) for row in rows)
    assert len(rows[0]) < 12


def test_code_in_a_folder_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]))
    auto = {"AutoTokenizer": ["theirs.Theirs", "theirs.Theirs"]}
    for name, kind in (("config.json", "bert"), ("tokenizer_config.json", "theirs")):
        (tmp_path / name).write_text(json.dumps({"model_type": kind, "auto_map": auto}))
    ran = tmp_path / "ran"
    code = ["from transformers import BertTokenizer as Theirs", f"open({str(ran)!r}, 'w')"]
    (tmp_path / "theirs.py").write_text("\n".join(code))
    open_backend(tmp_path)  # BERT's own in its place
    assert not ran.exists()
