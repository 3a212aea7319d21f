# SPDX-License-Identifier: Apache-2.0
"""Strings give what transformers' pipelines give with the same weights."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers

import conversion
from bcmb_jax import commands
from bcmb_jax.data.synthetic import synthetic_notes, train_tokenizer
from bcmb_jax.inference.entities import split_words
from bcmb_jax.model.heads import Head
from tests.fixtures.tiny_weights import random_weights
from tests.fixtures.torch_models import NARROW, torch, transformers

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore:Tokenizer does not support")]

TOLERANCE = 1e-4  # fp32 products of other libraries, layer after layer
SIZES = dataclasses.replace(NARROW, vocab_size=700, max_position_embeddings=512)
TAGS = ("O", "B-Drug", "I-Drug", "B-Dose", "I-Dose")
TEXTS = [
    "The left lung is clear.",
    "Pt. w/ IL-6 (3.5 mg) q.d.;\nna\u00efve \u03b2-blocker,  b.i.d.",
    "a",
    *(note.text[:700] for note in synthetic_notes(6, seed=1)),
]


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """`both(head, task)` is our model, and transformers' pipeline on the folder it is saved to."""
    folder = tmp_path_factory.mktemp("strings")
    # As in ModernBERT's vocabulary, characters after a space are tokens: where a space is a token
    # of its own the pipeline, which guesses what a word is, takes what follows for another word.
    characters = [f" {character}" * 99 for character in sorted(set("".join(TEXTS)))]
    train_tokenizer([*TEXTS, *characters], SIZES.vocab_size, folder / "tokenizer")

    def both(head: Head, task: str, **options):
        name = f"{head.kind}-{head.pooling}-{head.problem_type}"
        if not (folder / name).exists():
            weights = random_weights(SIZES, head)._replace(tokenizer=folder / "tokenizer")
            model = conversion.PretrainedModel(weights, jnp.dtype("float32"))
            conversion.save_pretrained(model, folder / name)
        ours = conversion.from_pretrained(folder / name, head.kind, precision="fp32")
        return ours, transformers.pipeline(task, model=str(folder / name), device="cpu", **options)

    return both


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_vectors(both, pooling) -> None:
    ours, theirs = both(Head("encoder"), "feature-extraction")
    hidden = [np.array(theirs(text)[0]) for text in TEXTS]
    wanted = [x.mean(0) if pooling == "mean" else x[0] for x in hidden]
    assert np.abs(ours.encode(TEXTS, pooling) - wanted).max() <= TOLERANCE


@pytest.mark.parametrize("problem", ["single_label", "multi_label"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_classes(both, pooling, problem) -> None:
    head = Head("sequence_classification", ("no", "yes", "x"), pooling, f"{problem}_classification")
    ours, theirs = both(head, "text-classification", top_k=None)
    for found, wanted in zip(ours.classify(TEXTS), theirs(TEXTS), strict=True):
        assert found == pytest.approx({x["label"]: x["score"] for x in wanted}, abs=TOLERANCE)


def test_masks(both) -> None:
    ours, theirs = both(Head(), "fill-mask")
    texts = ["The [MASK] lung is clear.", "[MASK] pt. has [MASK] and [MASK]"]
    one, several = (theirs(text, top_k=7) for text in texts)
    pairs = [(ours.fill_mask(texts[0], 7), one)]
    pairs += zip(ours.fill_mask(texts, 7)[1], several, strict=True)
    for found, wanted in pairs:
        assert [token for token, _ in found] == [x["token_str"] for x in wanted]
        assert [p for _, p in found] == pytest.approx([x["score"] for x in wanted], abs=TOLERANCE)


def as_tuples(entities) -> list[tuple[int, int, str]]:
    return [(x["start"], x["end"], x["entity_group"]) for x in entities]


def test_tags_of_words(both) -> None:
    """Our words, given to the pipeline as the model card says, make the same entities."""
    ours, theirs = both(Head("token_classification", TAGS), "token-classification")
    backend = theirs.tokenizer.backend_tokenizer
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    count = 0
    for text, found in zip(TEXTS, ours.tag(TEXTS), strict=True):
        spans = split_words(text)
        words = [text[start:end] for start, end in spans]
        wanted = theirs(words, is_split_into_words=True, aggregation_strategy="first")[0]
        # Their offsets are in the words with a space between them.
        lengths = np.cumsum([0, *(len(word) + 1 for word in words)])
        places = [
            (
                spans[np.searchsorted(lengths, start, "right") - 1][0],
                spans[np.searchsorted(lengths, end, "left") - 1][1],
                kind,
            )
            for start, end, kind in as_tuples(wanted)
        ]
        assert [(e.start, e.end, e.label) for e in found] == places
        scores = [x["score"] for x in wanted]
        assert [e.score for e in found] == pytest.approx(scores, abs=TOLERANCE)
        count += len(places)
    assert count > 300


def test_tags_of_single_spaced_words_have_their_offsets(both) -> None:
    ours, theirs = both(Head("token_classification", TAGS), "token-classification")
    backend = theirs.tokenizer.backend_tokenizer
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=True)
    words = [text[slice(*span)] for text in TEXTS for span in split_words(text)][:200]
    wanted = as_tuples(theirs(" ".join(words), aggregation_strategy="first"))
    # A pipeline that is given a text counts the space before a word in.
    text = " ".join(words)
    wanted = [(end - len(text[start:end].lstrip()), end, kind) for start, end, kind in wanted]
    assert [(e.start, e.end, e.label) for e in ours.tag(text)] == wanted


def test_tags_of_tokens(both) -> None:
    ours, theirs = both(Head("token_classification", TAGS), "token-classification")
    for text, found in zip(TEXTS, ours.tag(TEXTS, "simple"), strict=True):
        wanted = theirs(text, aggregation_strategy="simple")
        kept = [x for x in wanted if text[x["start"] : x["end"]].strip()]
        inside = [text[x["start"] : x["end"]] for x in kept]
        places = [
            (x["end"] - len(part.lstrip()), x["start"] + len(part.rstrip()), x["entity_group"])
            for x, part in zip(kept, inside, strict=True)
        ]
        assert [(e.start, e.end, e.label) for e in found] == places
        scores = [x["score"] for x in kept]
        assert [e.score for e in found] == pytest.approx(scores, abs=TOLERANCE)
    assert torch.get_default_dtype() == torch.float32


def test_their_speed_beside_ours_is_reported(both, tmp_path, capsys) -> None:
    both(Head("token_classification", TAGS), "token-classification")
    both(Head("masked_lm"), "feature-extraction")
    for name in ("masked_lm-mean-", "token_classification-mean-"):
        folder = next(tmp_path.parent.glob(f"strings*/{name}"))
        (tmp_path / "notes.csv").write_text("text\n" + "\n".join(f'"{x}"' for x in TEXTS[:3]))
        given = ("--model", str(folder), "--input", str(tmp_path / "notes.csv"))
        counts = ("--documents", "3", "--rounds", "2", "--peers", "pipeline")
        output = tmp_path / f"{name}.json"
        commands.main(
            "benchmark", "strings", *given, *counts, "--compare", "torch", "--output", str(output)
        )
        (line,) = json.loads(output.read_text())["results"]
        assert line["peer"] == "pipeline"
        assert [len(x) for x in line["every_call"].values()] == [2, 2]
        assert line["tokens"] > 3 * 5
        ours, theirs = line["peak_bytes"].values()
        assert 100e6 < ours != theirs > 100e6
    assert "strings to entities, 3 texts" in capsys.readouterr().out
