# SPDX-License-Identifier: Apache-2.0
"""spaCy with transformers: our encoder as its Transformer, our tagger as a component."""

from comparison import Comparison
from spacy_entities import compare_entities


def main() -> None:
    """Compare hidden states and entities."""
    compare = Comparison("spacy", "spacy-transformers", "transformers", "torch", "numpy")
    nlp = compare.snippet("spacy-transformers")["nlp"]
    texts, lengths = compare.ours["texts"], compare.arrays["mask"].sum(1)
    states = [doc._.trf_data.model_output.last_hidden_state[0] for doc in nlp.pipe(texts)]
    means = [x[:n].mean(0) for x, n in zip(states, lengths, strict=True)]
    what = "hidden states of its Transformer, means"
    compare.close("my-encoder (save_pretrained)", what, means, compare.arrays["mean"])
    compare_entities(compare, compare.snippet("spaCy, without this package")["nlp"])
    compare.finish()


if __name__ == "__main__":
    main()
