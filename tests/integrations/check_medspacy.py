# SPDX-License-Identifier: Apache-2.0
"""medspaCy with our tagger: our entities, and its ConText on them."""

from comparison import Comparison
from spacy_entities import EXPORT, compare_entities


def main() -> None:
    """Compare entities, and look at what is negated."""
    compare = Comparison("medspacy", "spacy", "transformers", "torch", "numpy")
    compare.snippet("spaCy, without this package")  # which defines the component
    nlp = compare.snippet("medspaCy")["nlp"]
    compare_entities(compare, nlp)
    doc = nlp("Denies chest pain. Started on aspirin 81 mg for pneumonia.")
    problems = [(x.text, x._.is_negated) for x in doc.ents if x.label_ == "Problem"]
    wanted = [("chest pain", True), ("pneumonia", False)]
    compare.equal(EXPORT, "ConText, problems and whether they are negated", problems, wanted)
    compare.finish()


if __name__ == "__main__":
    main()
