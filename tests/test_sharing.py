# SPDX-License-Identifier: Apache-2.0
"""Text that is shared: paths without a home, commands that repeat, Markdown that shows itself."""

from pathlib import Path

import pytest

from bcmb_jax.sharing import escape_markdown, shared_command, shared_path


@pytest.mark.parametrize(
    ("path", "shared"),
    [
        ("/home/ann/runs/notes", "notes"),
        ("~/runs/notes", "notes"),
        ("../../ann/notes", "notes"),
        ("runs/notes", "runs/notes"),
        (str(Path.cwd() / "runs" / "notes"), "runs/notes"),
        ("hub:answerdotai/ModernBERT-base", "hub:answerdotai/ModernBERT-base"),
        ("modernbert-base:stable", "modernbert-base:stable"),
    ],
)
def test_paths_show_no_home(path, shared) -> None:
    assert shared_path(path) == shared


def test_commands_keep_what_repeats_them() -> None:
    given = ["python", "x.py", "--task", "csv", "--model=/home/ann/m", "--data", "/mnt/ann/d.csv"]
    assert shared_command([*given, "--seeds", "1,2"]) == (
        "python x.py --task csv --model=m --data d.csv --seeds 1,2"
    )


@pytest.mark.parametrize("plain", ["mimic_iv", "PhysioNet 1.5.0", "AT&T", "CPR:3", "a - b, (c)"])
def test_plain_text_is_left_alone(plain) -> None:
    assert escape_markdown(plain) == plain


def test_markup_is_escaped() -> None:
    assert escape_markdown("a|b [c](d) <e> `f` *g* _h_ \\ &lt;\n# i") == (
        r"a\|b \[c\](d) \<e\> \`f\` \*g\* \_h\_ \\ \&lt; # i"
    )
