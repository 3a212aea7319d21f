# SPDX-License-Identifier: Apache-2.0
"""Strings in, results out: each text as if it were alone, in whatever company it comes."""

import dataclasses
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import bcmb_jax
import conversion
from bcmb_jax.errors import InputError
from bcmb_jax.inference import text_model
from bcmb_jax.inference.entities import split_words
from bcmb_jax.inference.packing import SHAPES
from bcmb_jax.inference.program import _run
from bcmb_jax.inference.windows import cut
from bcmb_jax.model.heads import Head
from tests.fixtures.tiny_model import TINY
from tests.fixtures.tiny_weights import random_weights

SIZES = dataclasses.replace(TINY, num_hidden_layers=1)  # attention's tests have the others
LONGEST = SIZES.max_position_embeddings
TAGS = ("O", "B-Drug", "I-Drug", "B-Dose", "I-Dose")
HEADS = (
    Head("masked_lm"),
    Head("token_classification", TAGS),
    Head("sequence_classification", ("no", "yes", "maybe")),
    Head("sequence_classification", ("no", "yes"), "cls", "multi_label_classification"),
)
WORDS = dict(zip(TAGS, ("of", "a", "left", "stroke", "the"), strict=True))
"""A word for each tag, each with a first token of its own."""
ROUNDING = 2e-5  # fp32 sums in rows of other lengths

TEXTS = [
    "a stroke of the left artery",
    "",
    "the left lung is clear\n" * 4,
    " \t ",
    "\u5fc3\u96fb\u56f3 na\u00efve [SEP] [MASK] \u03b2",
    "a",
    "is clear " * 12,
]
LONG = "the left lung is clear of a stroke " * 60


@pytest.fixture(scope="module")
def load(tiny_tokenizer):
    """`load(head, **sizes)` is a random tiny model with a tokenizer."""

    def load(head: Head, **sizes) -> conversion.PretrainedModel:
        weights = random_weights(dataclasses.replace(SIZES, **sizes), head)
        weights = weights._replace(tokenizer=tiny_tokenizer)
        return conversion.PretrainedModel(weights, jnp.dtype("float32"))

    return load


@pytest.fixture(scope="module")
def models(load) -> dict[int, conversion.PretrainedModel]:
    return dict(enumerate(map(load, HEADS)))


@pytest.fixture(scope="module")
def encoder(load):
    return load(Head("encoder"))


def alone(model, rows: list[np.ndarray]) -> list[np.ndarray]:
    """The outputs of each row of tokens, one document a row."""
    tokens = np.zeros((16, LONGEST), np.int32)
    real = np.zeros_like(tokens)
    for i, row in enumerate(rows):
        tokens[i, : len(row)], real[i, : len(row)] = row, 1
    outputs = np.asarray(model(tokens, real))
    pooled = "sequence" in model.head.kind
    return [outputs[i, 0] if pooled else outputs[i, : len(row)] for i, row in enumerate(rows)]


def windows_of(model, text: str):
    special = model.tokenizer.special
    (ids,) = model.tokenizer.encode_batch([text])
    return cut(ids, special.cls, special.sep, LONGEST)


@pytest.mark.parametrize("pooling", ["mean", pytest.param("cls", marks=pytest.mark.slow)])
def test_vectors_are_those_of_each_text_alone(encoder, pooling) -> None:
    texts = [*TEXTS, LONG]
    wanted = []
    for text in texts:
        windows = windows_of(encoder, text)
        hidden = alone(encoder, [window.tokens for window in windows])
        owned = [x[w.first : w.stop] for x, w in zip(hidden, windows, strict=True)]
        if pooling == "mean":
            wanted.append(np.concatenate(owned).mean(0))
        else:
            wanted.append(np.average([x[0] for x in hidden], 0, [*map(len, owned)]))
    assert len(windows) > 3
    vectors = encoder.encode(texts, pooling)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, wanted, atol=ROUNDING)
    np.testing.assert_allclose(encoder.encode(texts[2], pooling), wanted[2], atol=ROUNDING)
    of_generator = encoder.encode((text for text in texts[::-1]), pooling, normalize=True)
    unit = [x / np.linalg.norm(x) for x in wanted[::-1]]
    np.testing.assert_allclose(of_generator, unit, atol=ROUNDING)
    assert encoder.encode([], pooling).shape == (0, 16)


@pytest.mark.parametrize("several", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_classes_are_those_of_each_text_alone(models, several) -> None:
    model = models[2 + several]
    results = model.classify([*TEXTS, LONG])
    for text, found in zip([*TEXTS, LONG], results, strict=True):
        windows = windows_of(model, text)
        logits = alone(model, [window.tokens for window in windows])
        mean = np.average(logits, 0, [window.stop - window.first for window in windows])
        wanted = jax.nn.sigmoid(mean) if several else jax.nn.softmax(mean)
        assert tuple(found) == model.labels
        np.testing.assert_allclose([*found.values()], wanted, atol=ROUNDING)
        assert several or sum(found.values()) == pytest.approx(1)
    assert model.classify(TEXTS[0]) == pytest.approx(results[0], abs=ROUNDING)


def test_masks_are_filled_as_in_each_text_alone(models) -> None:
    model = models[0]
    many = "a [MASK] is [MASK]" * 12
    texts = ["the [MASK] lung", "[MASK] the [MASK]", many, LONG + "[MASK]" + LONG]
    found = model.fill_mask(texts, top=20)
    assert [len(x) for x in found] == [20, 2, 24, 20]
    mask = model.tokenizer.special.mask
    for text, fillings in zip(texts, found, strict=True):
        (ids,) = model.tokenizer.encode_marked([text])
        windows = cut(ids[1:-1], ids[0], ids[-1], LONGEST)
        logits = alone(model, [window.tokens for window in windows])
        places = [
            x[place]
            for x, w in zip(logits, windows, strict=True)
            for place in range(w.first, w.stop)
            if w.tokens[place] == mask
        ]
        for filling, x in zip(fillings if len(places) > 1 else [fillings], places, strict=True):
            best = np.argsort(-x)[:20]
            assert [token for token, _ in filling] == [model.tokenizer.decode([i]) for i in best]
            np.testing.assert_allclose(
                [p for _, p in filling], np.asarray(jax.nn.softmax(x))[best], atol=ROUNDING
            )
    assert len(model.fill_mask("[MASK]", top=1)) == 1


@pytest.fixture(scope="module")
def tagger(load):
    """A tagger whose layers add nothing: a word's tag follows from its first token."""
    model = load(HEADS[1])
    tags = np.zeros(TINY.vocab_size, int)
    for tag, word in enumerate(WORDS.values()):
        (read,) = model._tokenizer.each_word([word])
        tags[read.ids[0]] = tag
    eye = np.eye(len(TAGS), TINY.hidden_size, dtype=np.float32)
    model.params |= {
        "model.embeddings.tok_embeddings.weight": eye[tags],
        "head.dense.weight": np.eye(TINY.hidden_size, dtype=np.float32),
        "classifier.weight": 9 * eye,
        "classifier.bias": np.zeros(len(TAGS), np.float32),
    }
    for name, x in model.params.items():
        if ".Wo." in name:
            model.params[name] = np.zeros_like(x)
        elif "norm" in name:
            model.params[name] = np.ones_like(x)
    return model


def test_entities_of_a_long_note_are_whole(tagger) -> None:
    """In 30,000 tokens entities of 40 words stand on every border between two windows."""
    text, wanted = "", []
    rng = np.random.default_rng(0)
    while len(text) < 140_000:
        text += f"{WORDS['O']}\n" * int(rng.integers(1, 9))
        kind, start = ("Drug", "Dose")[rng.integers(2)], len(text)
        inside = [WORDS[f"B-{kind}"], *[WORDS[f"I-{kind}"]] * int(rng.integers(1, 60))]
        text += " ".join(inside)
        wanted.append((start, len(text), kind))
        text += " " * int(rng.integers(1, 4))
    tokens = tagger._tokenizer.each_word([text])[0].ids
    windows = cut(tokens, 0, 0, LONGEST)
    assert len(tokens) > 30_000
    assert len(windows) > 250
    found = tagger.tag(text)
    assert [(e.start, e.end, e.label) for e in found] == wanted
    assert all(0.9 < e.score <= 1 for e in found)


def test_tags_are_those_of_each_text_alone(models) -> None:
    model = models[1]
    for aggregation in ("first", "simple"):
        texts = [*TEXTS[:4], "(a) stroke, 3.5 left", LONG]
        found = model.tag(texts, aggregation)
        assert model.tag(texts[4], aggregation) == found[4]
        assert found[1] == found[3] == []
        for text, entities in zip(texts, found, strict=True):
            assert all(text[e.start : e.end].strip() == text[e.start : e.end] for e in entities)
            assert all(a.end <= b.start for a, b in itertools.pairwise(entities))
    tokenized = model._tokenizer.each_word(texts)
    special = model.tokenizer.special
    windows = [cut(text.ids, special.cls, special.sep, LONGEST) for text in tokenized[:5]]
    logits = alone(model, [w.tokens for (w,) in windows])
    for text, x, entities in zip(tokenized, logits, model.tag(texts[:5]), strict=False):
        tags = [TAGS[i] for i in x[1:-1].argmax(-1)[text.tokens]]
        starts = {span[0] for span, tag in zip(text.spans, tags, strict=True) if tag[0] == "B"}
        assert starts <= {e.start for e in entities}
        assert {
            s for e in entities for s in range(e.start, e.end) if not text.text[s].isspace()
        } == {
            s
            for (start, end), tag in zip(text.spans, tags, strict=True)
            if tag != "O"
            for s in range(start, end)
        }


def test_words_have_the_tag_of_their_first_token_after_a_space(tagger) -> None:
    text = "(left)artery\nartery"
    (read,) = tagger._tokenizer.each_word([text])
    one = {
        word: tagger._tokenizer.each_word([word])[0].ids.tolist()
        for word in ("(", "left", ")", "artery")
    }
    order = ["(", "left", ")", "artery", "artery"]
    assert read.ids.tolist() == [i for word in order for i in one[word]]
    assert [read.ids[i] for i in read.tokens] == [one[word][0] for word in order]
    assert [*read.spans] == split_words(text)
    plain = tagger.tokenizer.encode_batch([" artery"])[0].tolist()
    assert one["artery"] == plain


def test_few_programs_for_many_lengths(load) -> None:
    before = _run._cache_size()
    model = load(Head("encoder"), max_position_embeddings=512)
    vectors = model.encode(["a" * n for n in np.random.default_rng(0).permutation(400)[::5]])
    assert len(vectors) == 80
    model.encode("a")
    assert _run._cache_size() - before == 2 < SHAPES  # rows of 128 and 512


def test_a_generator_is_read_as_it_is_needed(encoder, models, monkeypatch) -> None:
    monkeypatch.setitem(text_model.CHARACTERS_AT_ONCE, "cpu", 100)
    taken = []

    def texts():
        for number in range(1000):
            taken.append(number)
            yield f"note {number} is clear"

    vectors = encoder.encode_each(texts())
    next(vectors)
    assert 0 < len(taken) < 20
    vectors.close()
    tags = models[1].tag_each(texts())
    assert isinstance(next(tags), list)


class NoString:
    def __str__(self) -> str:
        return "private"


def test_wrong_input_is_one_line_that_quotes_nothing(models, load) -> None:
    lm, tagger, classifier = models[0], models[1], models[2]
    cases = [
        (lambda: lm.encode(["private", None]), "text 2 is a NoneType; give strings"),
        (lambda: lm.encode([b"private"]), "text 1 is a bytes; give strings"),
        (lambda: lm.encode(NoString()), "texts are a NoString; give a string or several"),
        (lambda: lm.encode(7), "texts are a int; give a string or several"),
        (lambda: lm.encode(["private", "private \ud800"]), "text 2 holds half of a surrogate"),
        (lambda: lm.encode("private", "max"), "pooling 'max' is not one of cls, mean"),
        (lambda: lm.fill_mask(["a [MASK]", "private"]), r"text 2 has no \[MASK\]; write one"),
        (lambda: lm.fill_mask("a [MASK]", top=0), "top 0: choose 1 to 300 tokens"),
        (lambda: lm.fill_mask("a [MASK]", top=301), "top 301: choose 1 to 300 tokens"),
        (lambda: lm.tag("private"), "tag needs a token_classification head, and this model has"),
        (lambda: tagger.classify("private"), "classify needs a sequence_classification head"),
        (lambda: classifier.fill_mask("[MASK]"), "fill_mask needs a masked_lm head"),
        (lambda: tagger.tag("private", "most"), "aggregation 'most' is not 'first' or 'simple'"),
        (
            lambda: load(Head("encoder"), vocab_size=299).encode("private"),
            "the tokenizer has 300 entries and the model 299",
        ),
    ]
    for call, message in cases:
        with pytest.raises(InputError, match=message) as error:
            call()
        assert "private" not in str(error.value)
        assert "\n" not in str(error.value)
    without = conversion.PretrainedModel(random_weights(), jnp.dtype("float32"))
    with pytest.raises(InputError, match=r"random has no tokenizer\.json"):
        without.encode("private")


def test_a_very_long_word_is_one_word(tagger) -> None:
    word = WORDS["B-Dose"] + "x" * 10_000
    assert [e[:3] for e in tagger.tag(f"of {word} of")] == [(3, 3 + len(word), "Dose")]


def test_a_model_says_what_it_is(models) -> None:
    assert re.fullmatch(
        r"<token_classification \(O, B-Drug, I-Drug, B-Dose, I-Dose\): 1 layers of width 16, "
        r"[0-9,]+ parameters, fp32, reads 128 tokens; from random>",
        repr(models[1]),
    )
    assert models[1].labels == TAGS
    assert models[1].tokenizer.vocab_size == 300
    assert bcmb_jax.from_pretrained is conversion.from_pretrained
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        bcmb_jax.nothing  # noqa: B018


def test_progress_is_shown_on_request(encoder, capsys) -> None:
    encoder.encode(TEXTS)
    assert capsys.readouterr().err == ""
    encoder.encode(TEXTS, progress=True)
    assert re.search(r"[0-9]+ tokens, [0-9,]+ a second", capsys.readouterr().err)
