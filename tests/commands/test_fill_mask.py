# SPDX-License-Identifier: Apache-2.0
"""Masks in a text become the mask token, and get words by their probability."""

import numpy as np
import pytest

import conversion
from bcmb_jax import commands
from bcmb_jax.commands.fill_mask import encode_clozes, ranks, read_probes, summary
from bcmb_jax.data.synthetic import DEMO_CLOZES, train_tokenizer
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(["the left lung is clear", "a stroke"], 280, directory)
    return load_tokenizer(str(directory))


def test_masks_take_the_space_before_them(tokenizer) -> None:
    special = tokenizer.special
    (row,) = encode_clozes(tokenizer, ["the [MASK] lung"])
    before, after = tokenizer.encode_batch(["the", " lung"])
    wanted = [special.cls, *before, special.mask, *after, special.sep]
    assert row.tolist() == wanted


def test_demo_sentences_have_a_mask_each(tokenizer) -> None:
    rows = encode_clozes(tokenizer, DEMO_CLOZES)
    assert all((row == tokenizer.special.mask).sum() == 1 for row in rows)


def test_a_text_without_a_mask_is_named_by_number(tokenizer) -> None:
    with pytest.raises(InputError, match="text 2 of 2") as error:
        encode_clozes(tokenizer, ["a [MASK]", "private words"])
    assert "private" not in str(error.value)


def test_words_are_printed_for_each_mask(folder, capsys) -> None:
    texts = ("a [MASK] of the [MASK]", "the [MASK] lung")
    given = [part for text in texts for part in ("--text", text)]
    commands.main("fill-mask", "--model", str(folder), *given, "--top", "3")
    _, *lines = capsys.readouterr().out.rstrip().splitlines()
    assert [line for line in lines if line in texts] == list(texts)[: len(lines)]
    rows = [line for line in lines if line.startswith("   ")]
    assert [line.count(" %") for line in rows] == [3, 3, 3]
    model = conversion.from_pretrained(folder)
    (word, probability), *_ = model.fill_mask(texts[1], 3)
    assert rows[2].split("   ")[1] == f"{word.strip() or repr(word)} {100 * probability:.1f} %"


def test_probes_are_ranked_by_the_best_form_of_their_word(tokenizer, tmp_path) -> None:
    file = tmp_path / "probes.tsv"
    file.write_text("the [MASK] lung\tx\n[MASK] is\ty\n")
    texts, answers = read_probes(file, tokenizer)
    x, y = (int(tokenizer.encode_batch([letter])[0][0]) for letter in "xy")
    assert texts == ["the [MASK] lung", "[MASK] is"]
    assert x in answers[0]
    assert y in answers[1]

    def model(tokens, segment_ids):
        logits = np.full((*tokens.shape, 280), -50.0, np.float32)
        logits[..., x], logits[..., 5], logits[..., 6], logits[..., y] = 3, 2, 1, 0
        return logits

    found = ranks(model, tokenizer, encode_clozes(tokenizer, texts), answers)
    assert found.tolist() == [1, 4]
    assert summary(found, 5) == (
        "2 probes: right 50.0%, among the first 5 100.0%, mean reciprocal rank 0.625"
    )


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("no mask\tx", r"probes\.tsv:2 is not a text with one \[MASK\], a tab and a word"),
        ("[MASK] and [MASK]\tx", "probes.tsv:2 is not"),
        ("the [MASK]", "probes.tsv:2 is not"),
        ("the [MASK]\txyzzy", "probes.tsv:2: the word is . tokens, and must be 1"),
    ],
)
def test_bad_probes_are_named_by_line(tokenizer, tmp_path, line, message) -> None:
    file = tmp_path / "probes.tsv"
    file.write_text(f"the [MASK]\tx\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_probes(file, tokenizer)


@pytest.mark.parametrize(
    "content",
    [
        "the\u2028 [MASK] lung\tx\n",
        "the\x85 [MASK] lung\tx\n",
        "page\x0cthe [MASK] lung\tx\n",
        "the\x0b [MASK]\tx\n",
        "the [MASK]\x1clung\tx",
        "the [MASK] lung\tx\n\n",
        "the [MASK] lung\tx\n \t\x0b\n",
        "\n\nthe [MASK] lung\tx\r\n",
        "\ufeffthe [MASK] lung\tx\n",
    ],
)
def test_only_line_feeds_end_a_probe(tokenizer, tmp_path, content) -> None:
    file = tmp_path / "probes.tsv"
    file.write_bytes(content.encode())
    texts, answers = read_probes(file, tokenizer)
    assert texts == [content.strip("\n\ufeff").split("\t")[0]]
    assert not texts[0].startswith("\ufeff")
    assert len(answers) == 1


def test_probe_files_that_failed(tokenizer, tmp_path, shared) -> None:
    case = shared / "cases/21-fill-mask"
    if not case.is_dir():
        pytest.skip("needs the folder of cases beside the checkout")
    for name in ("blank-last", "bom", "crlf", "formfeed", "nel", "plain", "u2028", "vt-last"):
        content = (case / f"{name}.txt").read_bytes()
        # The tiny vocabulary knows letters, not these words.
        for word in (b"chest", b"stable"):
            content = content.replace(b"\t" + word, b"\tx")
        (tmp_path / name).write_bytes(content)
        texts, _ = read_probes(tmp_path / name, tokenizer)
        assert len(texts) == 1 + (name == "crlf")
        assert all(text.endswith(".") for text in texts)
    with pytest.raises(InputError, match=r"comment\.txt:1 is not a text with one"):
        read_probes(case / "comment.txt", tokenizer)


@pytest.mark.parametrize("top", [-1, 0, 301, 5000])
def test_more_words_than_there_are_is_one_line(folder, top) -> None:
    command = ["fill-mask", "--model", str(folder), "--text", "a [MASK]", "--top", str(top)]
    with pytest.raises(InputError, match=f"--top {top}: choose 1 to 300 predictions"):
        commands.main(*command)
