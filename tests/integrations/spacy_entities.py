# SPDX-License-Identifier: Apache-2.0
"""Entities of a spaCy pipeline beside those of our tagger."""

from comparison import Comparison
from spacy.tokenizer import Tokenizer
from spacy.util import filter_spans

EXPORT = "my-tagger (bcmb finetune)"


def compare_entities(compare: Comparison, nlp) -> None:
    """Compare with the pipeline's own tokenizer, then with one whose tokens are our words.

    spaCy's entities are whole tokens of its own, so that ours are widened to them in the first.
    """
    own = nlp.tokenizer
    words = Tokenizer(nlp.vocab, infix_finditer=compare.word.finditer)
    for tokenizer, what in ((own, "entities, widened to its tokens"), (words, "entities of words")):
        nlp.tokenizer = tokenizer
        found, wanted = [], []
        for i, doc in enumerate(nlp.pipe(compare.ours["texts"])):
            found += [(i, x.start_char, x.end_char, x.label_) for x in doc.ents]
            ours = [tuple(x[:3]) for x in compare.ours["tag"][i]]
            if tokenizer is own:
                spans = filter_spans([doc.char_span(*x, alignment_mode="expand") for x in ours])
                ours = [(x.start_char, x.end_char, x.label_) for x in spans]
            wanted += [(i, *x) for x in ours]
        compare.equal(EXPORT, what, found, wanted)
    nlp.tokenizer = own
