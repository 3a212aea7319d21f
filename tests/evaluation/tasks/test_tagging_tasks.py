# SPDX-License-Identifier: Apache-2.0
"""Readers of words with tags on made-up files: what they read, reproduce, count and refuse."""

import pytest

from bcmb_jax.evaluation.examples import SPLITS
from bcmb_jax.evaluation.scores import counts
from tests.fixtures.task_readers import everything, read, refused, tagged, tags_of

BIO = "-DOCSTART-\tO\n\nheart\tB-Disease\nfailure\tI-Disease\n.\tO\n\n\nNo\tO\n"


def test_bio_files(write) -> None:
    four = "heart\t1\t0\tB-Disease\r\n\r\nNo 0 1 O\r\n"
    folder = write({"train.conll": BIO, "valid.iob.gz": BIO, "test.txt": four})
    dataset = read("conll", folder)
    assert dataset.labels == ("B-Disease", "I-Disease", "O")
    assert dataset.splits["train"] == [
        ("train.conll, line 3", ("heart", "failure", "."), (0, 1, 2)),
        ("train.conll, line 8", ("No",), (2,)),
    ]
    assert [example.text for example in dataset.splits["test"]] == [("heart",), ("No",)]
    assert dataset.notes == ("2 -DOCSTART- lines, which are no words",)


def test_bio_keeps_and_counts_what_is_odd(write) -> None:
    bare = "heart\tB\nfailure\tI\n\nof\tO\nhearts\tI\n"
    dataset = read("conll", write({"train.tsv": bare, "dev.tsv": bare, "test.tsv": bare}))
    assert dataset.labels == ("B-Entity", "I-Entity", "O")
    assert [example.labels for example in dataset.splits["train"]] == [(0, 1), (2, 1)]
    assert dataset.notes == (
        "9 bare tags B and I, read as B-Entity and I-Entity",
        "3 I- tags that begin an entity, kept as they are",
    )


@pytest.mark.parametrize(
    ("test", "message"),
    [
        ("heart\n", "test.tsv, line 1: no word and tag, but 1 column(s)"),
        ("a\tO\n\tO\n", "test.tsv, line 2: no word and tag, but 2 column(s) of which the first"),
        ("a\tS-Disease\n", "test.tsv, line 1, column 2: no BIO tag (B-kind, I-kind or O)"),
        ("\n-DOCSTART-\n\n", "test.tsv holds no sentence"),
        (b"a\tO\nb\xff\tO\n", "test.tsv, line 2: bytes that are not UTF-8"),
        (b"\x1f\x8b\x08broken", "test.tsv is a damaged or incomplete gzip file"),
    ],
    ids=["one column", "no word", "scheme", "empty", "bytes", "gzip"],
)
def test_bio_names_bad_lines(write, test: str | bytes, message: str) -> None:
    folder = write({"train.tsv": BIO, "devel.tsv": BIO, "test.tsv": test})
    assert message in refused("conll", folder)


def test_bio_of_another_corpus_is_refused(write) -> None:
    folder = write({"train.tsv": BIO, "devel.tsv": BIO, "test.tsv": BIO})
    assert len(read("ncbi_disease", folder).labels) == 3
    message = "train.tsv has no entity Chemical: this is another corpus, which --task conll reads"
    assert message in refused("bc5cdr", folder)
    write({"test.tsv": BIO + "\naspirin\tB-Drug\n"})
    message = refused("ncbi_disease", folder)
    assert (
        "test.tsv, line 10: of its kinds of entity a label of 4 characters that is none" in message
    )
    write({"train.tsv": "a\tO\n"})
    assert "tags every word O: there is nothing to learn" in refused("conll", folder)


@pytest.mark.parametrize(
    ("dev", "test", "count", "kinds"),
    [
        (BIO, "aspirin\tB-Drug\nheart\tB-Disease\n", 1, "Drug"),
        (BIO, "the\tO\nacetic\tB-Drug\nacid\tI-Drug\n\nTP53\tB-Gene\n", 2, "Drug, Gene"),
        ("aspirin\tI-Drug\n", BIO, 1, "Drug"),
        ("a\tB-Drug\nb\tB-Drug\n", "a\tB-Drug\n", 3, "Drug"),
        (BIO, "a\tB\nb\tO\n", 1, "Entity"),
    ],
)
def test_entities_of_kinds_unknown_to_training_are_missed_and_reported(
    write, dev: str, test: str, count: int, kinds: str
) -> None:
    dataset = read("conll", write({"train.tsv": BIO, "dev.tsv": dev, "test.tsv": test}))
    note = f"{count} entities of kinds that training lacks, which count as missed: {kinds}"
    assert note in dataset.notes
    trained = {label for e in dataset.splits["train"] for label in e.labels}
    truth = [e.labels for split in ("validation", "test") for e in dataset.splits[split]]
    # The best that training can teach: every entity of its kind, and O for the others.
    other = dataset.labels.index("O")
    best = [tuple(i if i in trained else other for i in tags) for tags in truth]
    found = counts("tagging", dataset.labels, truth, best).sum((0, 1))
    assert found.tolist() == [found[2] - count, found[2] - count, found[2]]


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("10\u00a0mg\tB-Dose", "10\u00a0mg"),
        ("10\u00a0mg O B-Dose", "10\u00a0mg"),
        ("  10\u00a0mg  B-Dose ", "10\u00a0mg"),
        ("\u00a0\tB-Dose", "\u00a0"),
        ("5\u202f000\u00a0\tB-Dose", "5\u202f000\u00a0"),
        ("5\u2007%\tNN\tB-Dose\u00a0", "5\u2007%"),
        ("\u3000x\x85 B-Dose", "\u3000x\x85"),
    ],
)
def test_words_keep_their_no_break_spaces(write, line: str, word: str) -> None:
    rows = f"{line}\nnow\tO\n"
    dataset = read("conll", write({"train.tsv": rows, "dev.tsv": rows, "test.tsv": rows}))
    for examples in dataset.splits.values():
        assert [example.text for example in examples] == [(word, "now")]


# brat

FILLER = {f"z{i}.ann": "T1\tSnippet 0 5\tclear\nT2\tVal 0 5\tclear\n" for i in range(10)}
SNIPPETS = (
    "T1\tSnippet 10 36\tThe left-lung is improved.\n"
    "T2\tLoc 14 23\tleft-lung\n"
    "T3\tCos 27 35\timproved\n"
    "T4\tVal 27 35\timproved\n"
    "T5\tAttr 18 23\t-lung\n"  # from the second word of T2 on
    "T6\tLoc 14 16\tle\n"  # within a word
    "T7\tRef 80 84\tthat\n"
    "T8\tEvent 14 23\tleft-lung\n"
    "T9\tLoc 14 18;19 23\tleft lung\n"
    "E1\tLoc:T2\n"
    "T10\tSnippet 40 43\tNo.\n"
)


def test_cos(write) -> None:
    dataset = read("cos", write({**FILLER, "a.ann": SNIPPETS}))
    assert len(dataset.labels) == 11
    assert dataset.labels.index("O") == 10
    assert [len(dataset.splits[split]) for split in SPLITS] == [8, 2, 2]
    example = next(e for e in everything(dataset) if e.where == "a.ann, line 1")
    assert tagged(dataset, example) == [
        ("The", "O"),
        ("left", "B-Loc"),
        ("-", "B-Attr"),
        ("lung", "I-Attr"),
        ("is", "O"),
        ("improved", "B-Val"),
        (".", "O"),
    ]
    assert tags_of(dataset, "a.ann, line 11") == ["O", "O"]
    assert set(dataset.notes) >= {
        "1 spans in several pieces, left out",
        "1 spans of other kinds, left out",
        "1 spans that lie in no snippet, left out",
        "2 spans that take words from an earlier one",
        "1 spans that get no word, as none lies wholly inside",
    }


def test_cos_takes_spans_in_the_order_of_the_file(write) -> None:
    spans = "T1\tSnippet 0 9\tleft lung\nT2\tAttr 5 9\tlung\nT3\tLoc 0 9\tleft lung\n"
    dataset = read("cos", write({**FILLER, "a.ann": spans}))
    assert tags_of(dataset, "a.ann, line 1") == ["B-Loc", "I-Loc"]


def test_cos_corrected(write) -> None:
    dataset = read("cos", write({**FILLER, "a.ann": SNIPPETS}), corrected=True)
    # T6 has the word it touches, of which T5 leaves nothing to T2.
    assert tags_of(dataset, "a.ann, line 1")[1:4] == ["B-Loc", "B-Attr", "I-Attr"]
    assert not any("that get no word" in note for note in dataset.notes)


def test_brat_names_bad_lines(write) -> None:
    folder = write({**FILLER, "a.ann": "T1\tSnippet 0 3\tNo.\nT2\tLoc x 3\tNo\n"})
    assert "a.ann, line 2: not a span as 'T1<tab>Kind" in refused("cos", folder)
    write({"a.ann": "T1\tSnippet 3 2\tN\n"})
    assert "a.ann, line 1: not a span as" in refused("cos", folder)
    write({"a.ann": "T1\tSnippet 0 3\t\n"})
    assert "a.ann, line 1: the snippet has no text" in refused("cos", folder)
    write({"a.ann": b"T1\tSnippet 0 3\tNo.\nT2\tLoc 0 2\tN\xff\n"})
    assert "a.ann, line 2: bytes that are not UTF-8" in refused("cos", folder)


HISTORY = "He smokes daily.\nLives with his wife."
SPANS = (
    "T1\tStatusTime 3 9\tsmokes\n"
    "T2\tFrequency 10 15\tdaily\n"  # "daily." is not inside
    "T4\tTobacco 3 15\tsmokes daily\n"
    "T5\tTime 17 27\tLives with\n"
    "T6\tType 22 27\tother\n"
)


def histories(**files: str | bytes) -> dict[str, str | bytes]:
    filler = {f"{name}.{end}": "" for name in "bcdefghij" for end in ("txt", "ann")}
    texts = {name: "No habits." if name.endswith("txt") else "" for name in filler}
    return {**texts, "a.txt": HISTORY, "a.ann": SPANS, **files}


def test_social_history(write) -> None:
    folder = write(histories())
    dataset = read("social_history", folder)
    assert len(dataset.labels) == 51
    assert dataset.labels.index("O") == 50
    assert [len(dataset.splits[split]) for split in SPLITS] == [7, 1, 2]
    # Sorted by where they start; Tobacco takes "smokes" from Status, Type takes "with".
    expected = ["O", "B-Tobacco", "O", "B-Temporal", "B-Type", "O", "O"]
    assert tags_of(dataset, f"{folder.name}/a.txt") == expected
    assert set(dataset.notes) >= {
        "1 spans that get no word, as none lies wholly inside",
        "2 spans that take words from an earlier one",
        "1 spans that say another text than stands there",
    }


def test_social_history_corrected(write) -> None:
    files = {
        f"{split}/{name}": content
        for split in ("train", "dev", "test")
        for name, content in histories().items()
        if name[0] in {"train": "abcdef", "dev": "gh", "test": "ij"}[split]
    }
    folder = write(files)
    assert len(read("social_history", folder).splits["train"]) == 7
    dataset = read("social_history", folder, corrected=True)
    assert [len(dataset.splits[split]) for split in SPLITS] == [6, 2, 2]
    assert len(dataset.labels) == 53
    expected = ["O", "B-Tobacco", "B-Frequency", "B-Temporal", "B-Type", "O", "O"]
    assert tags_of(dataset, "train/a.txt") == expected


def test_what_a_later_span_leaves_of_another_is_kept_as_it_was_or_begun_anew(write) -> None:
    spans = "T1\tType 0 9\tHe smokes\nT2\tMethod 0 2\tHe\n"
    folder = write(histories(**{"a.ann": spans}))
    where = f"{folder.name}/a.txt"
    assert tags_of(read("social_history", folder), where)[:2] == ["B-Method", "I-Type"]
    corrected = read("social_history", folder, corrected=True)
    assert tags_of(corrected, where)[:2] == ["B-Method", "B-Type"]


def test_social_history_counts_lonely_files(write) -> None:
    folder = write(histories(**{"x.txt": "Alone.", "y.ann": ""}))
    dataset = read("social_history", folder)
    assert len(everything(dataset)) == 10
    assert set(dataset.notes) >= {
        "1 .ann files without their .txt, left out",
        "1 .txt files without their .ann, left out",
    }


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"a.ann": "T1\tWeather 0 2\tHe\n"},
            "a.ann, line 1: a kind of span that Social History has not",
        ),
        (
            {"a.ann": "T1\tLivingSituation 0 2\tHe\n"},
            "a.ann, line 1: a label of 17 characters that is none of B-A",
        ),
        ({"a.ann": "\nT1 Type 0 2\tHe\n"}, "a.ann, line 2: not a span as"),
        ({"a.txt": " \n"}, "a.txt is empty: take it and its .ann out"),
        ({"a.txt": b"He smokes.\n\xff"}, "a.txt, line 2: bytes that are not UTF-8"),
        ({"train/a.txt": ""}, "has 0 folders for validation (dev or devel or"),
    ],
    ids=["kind", "never", "span", "empty", "bytes", "split"],
)
def test_social_history_names_bad_files(write, files: dict[str, str], message: str) -> None:
    assert message in refused("social_history", write(histories(**files)))
