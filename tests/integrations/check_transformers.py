# SPDX-License-Identifier: Apache-2.0
"""Pipelines of transformers give our words, vectors, probabilities and entities."""

import itertools
import re

import transformers
from comparison import Comparison, entities
from tokenizers.pre_tokenizers import ByteLevel


def tag_words(pipeline, text: str, word: re.Pattern[str]) -> list[tuple[int, int, str]]:
    """Return entities of our words, which the pipeline gets with a single space between them."""
    spans = [x.span() for x in word.finditer(text)]
    words = [text[start:end] for start, end in spans]
    joined = " ".join(words)
    starts = [0, *itertools.accumulate(len(word) + 1 for word in words)]
    first = {start: span[0] for start, span in zip(starts, spans, strict=False)}
    last = {start - 1: span[1] for start, span in zip(starts[1:], spans, strict=True)}
    found = entities(pipeline(joined, aggregation_strategy="first"), joined)
    return [(first[start], last[end], label) for start, end, label in found]


def main() -> None:
    """Compare every pipeline with ours."""
    compare = Comparison("transformers", "tokenizers", "torch", "numpy")
    compare.snippet("transformers")
    ours, texts = compare.ours, compare.ours["texts"]

    def pipeline(task: str, model: str):
        return transformers.pipeline(task, model=model, device="cpu")

    filled = pipeline("fill-mask", "notes-modernbert")(ours["masked"])
    found = [*filled[:1], *filled[1]]  # the second text has two masks
    wanted = [ours["fill_mask"][0], *ours["fill_mask"][1]]
    export = "notes-modernbert (--to huggingface)"
    words = [[x["token_str"] for x in one] for one in found]
    compare.equal(export, "fill-mask, words", words, [[x for x, _ in one] for one in wanted])
    scores = [[x["score"] for x in one] for one in found]
    compare.close(export, "fill-mask, probabilities", scores, [[p for _, p in x] for x in wanted])

    hidden = [x[0] for x in pipeline("feature-extraction", "my-encoder")(texts)]
    export = "my-encoder (save_pretrained)"
    means = [[sum(x) / len(x) for x in zip(*rows, strict=True)] for rows in hidden]
    compare.close(export, "feature-extraction, means", means, compare.arrays["mean"])
    first = [x[0] for x in hidden]
    compare.close(export, "feature-extraction, [CLS]", first, compare.arrays["cls"])

    classified = pipeline("text-classification", "my-classifier")(texts, top_k=None)
    labels = list(ours["classify"][0])
    scores = [{x["label"]: x["score"] for x in one} for one in classified]
    export = "my-classifier (bcmb finetune)"
    rows = [[row[label] for label in labels] for row in ours["classify"]]
    found = [[row[label] for label in labels] for row in scores]
    compare.close(export, "text-classification, probabilities", found, rows)

    tagger, export = pipeline("token-classification", "my-tagger"), "my-tagger (bcmb finetune)"
    wanted = [(i, *x[:3]) for i, one in enumerate(ours["tag_simple"]) for x in one]
    found = [tagger(text, aggregation_strategy="simple") for text in texts]
    places = [entities(x, text) for x, text in zip(found, texts, strict=True)]
    what = "token-classification, entities of texts"
    compare.equal(export, what, [(i, *x) for i, one in enumerate(places) for x in one], wanted)
    tagger.tokenizer.backend_tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=True)
    places = [tag_words(tagger, text, compare.word) for text in texts]
    wanted = [(i, *x[:3]) for i, one in enumerate(ours["tag"]) for x in one]
    what = "token-classification, entities of words"
    compare.equal(export, what, [(i, *x) for i, one in enumerate(places) for x in one], wanted)
    compare.finish()


if __name__ == "__main__":
    main()
