# SPDX-License-Identifier: Apache-2.0
"""Hard-wrapped paragraphs are joined, and all else keeps its lines."""

import random

import pytest

from bcmb_jax.data.clean import unwrap
from tests.fixtures.notes import NOTE, prose

UNWRAPPED = """\
The patient is a very patient patient who came in with pain in the belly that had begun on the \
evening before, after a large meal, and which went away when walking. No fever was measured at \
home. A follow-up visit was planned for the week after that, but like then, the pre- and post-meal \
pain did not let up.
She denies cough, hoarseness and any change of weight.
She denies chills.
"""


def wrap(text: str, width: int, end: str = "") -> str:
    """Breaks lines where the next word would pass the width, as old terminals did."""
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines[-1] += end
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)


def test_paragraphs_are_joined_and_all_else_keeps_its_lines() -> None:
    lines = unwrap(NOTE).split("\n")
    start = NOTE.index("The patient is")
    assert UNWRAPPED in unwrap(NOTE)
    assert unwrap(NOTE)[:start] == NOTE[:start]
    table = NOTE[NOTE.index("Pertinent Results") : NOTE.index("Take the tablets")]
    assert table in unwrap(NOTE)
    listed = "when the kidneys were looked at two years ago"
    assert sum(line.startswith("1. ") and line.endswith(listed) for line in lines) == 1
    for line in ("PAST MEDICAL HISTORY", "Hypertension", "3. Gout", "- another one"):
        assert line in lines


@pytest.mark.parametrize("width", [55, 64, 72, 80, 95])
@pytest.mark.parametrize("end", ["", " ", "\r"])
def test_any_width_is_undone(width: int, end: str) -> None:
    draw = random.Random(width)
    paragraphs = [prose(draw, 80) + "." for _ in range(5)]
    wrapped = "\n\n".join(f"Heading {width}:\n{wrap(text, width, end)}" for text in paragraphs)
    assert unwrap(wrapped) == "\n\n".join(f"Heading {width}:\n{text}" for text in paragraphs)
    assert unwrap(unwrap(wrapped)) == unwrap(wrapped)


def test_what_was_not_wrapped_is_left_alone() -> None:
    draw = random.Random(0)
    sentences = [prose(draw, draw.randint(6, 18)) + "." for _ in range(60)]
    assert unwrap("\n".join(sentences)) == "\n".join(sentences)
    long = [prose(draw, 100) for _ in range(10)]
    assert unwrap("\n".join(long)) == "\n".join(long)
    verses = wrap(prose(draw, 60), 40)
    assert unwrap(verses) == verses
    assert unwrap(wrap(prose(draw, 16), 72)).count("\n") == 1  # one break may be chance


def test_lines_may_hold_placeholders() -> None:
    draw = random.Random(1)
    texts, wrapped = [], []
    for name, placeholder in [
        ("Ng", "___"),
        ("Hanrahan", "___"),
        ("Smythe-Hanrahan", "___"),
        ("Ng", "[**Last Name (Something) 12**]"),
        ("Smythe-Hanrahan", "[**Last Name 1**]"),
    ]:
        words = prose(draw, 90).split()
        words[::15] = [name] * 6
        wrapped.append(wrap(" ".join(words), 70).replace(name, placeholder))
        texts.append(" ".join(wrapped[-1].split()))
    assert unwrap("\n\n".join(wrapped)) == "\n\n".join(texts)


def test_unwrap_keeps_every_character() -> None:
    draw = random.Random(2)
    pieces = [
        "\n",
        "\n\n",
        " ",
        "  ",
        "\t",
        "-",
        "re-",
        ":",
        "1. ",
        "A",
        "b.",
        "___",
        "[**x**]",
        "é",
    ]
    for _ in range(300):
        often = draw.choice((0.05, 0.3))
        words = [
            draw.choice(pieces) if draw.random() < often else prose(draw, 1) for _ in range(120)
        ]
        text = wrap(" ".join(words), 70) if draw.random() < 0.5 else " ".join(words)
        assert "".join(unwrap(text).split()) == "".join(text.split())
        assert len(unwrap(text)) <= len(text)
