# SPDX-License-Identifier: Apache-2.0
"""Which values of a user's own files may become labels, and so stand in results and kept models.

A wrong column as `--label-column` would make labels of patients or of notes. Labels are therefore
few, short, often used and without long numbers, or listed in a file by whoever knows them.
"""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Set
from pathlib import Path

from bcmb_jax.errors import InputError, record_error
from bcmb_jax.evaluation.tasks import reading
from bcmb_jax.sharing import LONGEST_LABEL

MOST_LABELS = 30
"""More of them are taken from a list alone."""
FEWEST_USES = 10
"""Uses of a label in training, on average: persons and texts are many, and each is rare."""
MOST_LISTED = 10_000
_NUMBER = re.compile(r"\d{5}|\d{4}[-/.]\d\d?[-/.]\d|\d\d?[-/.]\d\d?[-/.]\d\d")  # also dates


def read_labels(file: str | Path) -> tuple[str, ...]:
    """Read a list of labels, one a line, and return them in its order.

    Raises:
      InputError: there is no such list, or a line of it is too long or there twice.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"--labels {path} is no file: write one with a label a line")
    names: dict[str, int] = {}
    for number, line in reading.read_lines(path):
        name = line.strip()
        if len(name) > LONGEST_LABEL:
            what = f"{len(name):,} characters, at most {LONGEST_LABEL} are a label"
            raise record_error(path, number, what)
        if name in names:
            raise record_error(path, number, f"the label of line {names[name]:,} again")
        if name:
            names[name] = number
    if not 0 < len(names) <= MOST_LISTED:
        raise InputError(f"--labels {path} lists {len(names):,} labels, not 1 to {MOST_LISTED:,}")
    return tuple(names)


def check_labels(uses: Mapping[str, Counter[str]], file: Path, unit: str, fix: str) -> None:
    """Refuse labels that may be names or texts; the message has numbers alone.

    Args:
      uses: how often each split uses each label.
      file: that of training.
      unit: of what they are labels ("rows").
      fix: how to choose other ones.

    Raises:
      InputError: they are too many, too rare, or hold long numbers.
    """
    names, total = set().union(*uses.values()), uses["train"].total()
    count, numbers = len(names), sum(bool(_NUMBER.search(name)) for name in names)
    if count > MOST_LABELS:
        wrong = f"{count:,} different labels, and more than {MOST_LABELS} are taken from a list"
    elif total < FEWEST_USES * count:
        wrong = (
            f"{count:,} different labels and {total:,} {unit}, {total / count:.1f} for each where "
            f"{FEWEST_USES} or more are expected"
        )
    elif numbers:
        wrong = f"{numbers:,} labels of {count:,} that hold a date or five digits in a row"
    else:
        return
    raise InputError(
        f"{file} has {wrong}: labels are written to results and models, and must be no names or "
        f"texts; {fix}, or if they are meant, list them one a line in a file for --labels"
    )


def check_groups(pairs: Set[tuple[str, str]], file: Path, column: str) -> None:
    """Refuse labels that each belong to one group: they are another name of the group.

    Args:
      pairs: labels and their groups.
      column: the column of groups.
    """
    count = len({label for label, _ in pairs})
    if pairs and len(pairs) == count:
        raise InputError(
            f"{file}: each of the {count:,} labels stands in one group of {column!r} alone, as a "
            "name of the group would: correct --label-column"
        )


def check_lengths(cells: Iterable[tuple[int, str]], file: Path, fix: str) -> None:
    """Refuse a label that is a text.

    Args:
      cells: lines of the file, and a label in each.
    """
    for line, label in cells:
        if len(label) > LONGEST_LABEL:
            what = f"a label of {len(label):,} characters, at most {LONGEST_LABEL} are one: {fix}"
            raise record_error(file, line, what)
