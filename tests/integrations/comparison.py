# SPDX-License-Identifier: Apache-2.0
"""Outputs of another program beside ours, in an environment that has that program and not ours.

python tests/integrations/check_PROGRAM.py NAME FOLDER      FOLDER/exports → FOLDER/NAME.json
python tests/integrations/comparison.py FOLDER              prints all FOLDER/NAME.json as a table
"""

import json
import os
import platform
import re
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/integrations.md"
TOLERANCE = 1e-4
"""Allowed between float32 outputs of two programs."""
INT8_COSINE = 0.98
"""The least cosine of outputs whose matrix products are in int8 with ours in float32."""


class Comparison:
    """Collects how far a program's outputs are from ours; `finish` writes and judges them.

    Attributes:
      exports: the folder of the exports, which is the working folder too.
      ours: our outputs as JSON, by name.
      arrays: our outputs as arrays, by name.
      word: the pattern of words as taggers are fine-tuned on them.
    """

    def __init__(self, *packages: str):
        self.name, folder = sys.argv[1], Path(sys.argv[2]).absolute()
        self.exports, self._file = folder / "exports", folder / f"{self.name}.json"
        os.chdir(self.exports)
        import numpy as np  # not needed to print the table

        self.ours: dict[str, Any] = json.loads(Path("expected.json").read_text())
        with np.load("expected.npz") as arrays:
            self.arrays = dict(arrays)
        self.word = re.compile(self.ours["word"])
        found = {x: installed for x in packages if (installed := _version(x))}
        self._versions = {"Python": platform.python_version(), **found}
        self._rows: list[dict[str, Any]] = []

    def snippet(self, heading: str) -> dict[str, Any]:
        """Run the example below a heading of the page, beside the exports; return its names."""
        return run_example(PAGE.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1])

    def close(self, export: str, what: str, found: Any, wanted: Any) -> None:
        """Compare numbers of equal shapes."""
        import numpy as np

        found, wanted = np.asarray(found, float), np.asarray(wanted, float)
        if found.shape != wanted.shape:
            self._add(export, what, f"shape {found.shape}, not {wanted.shape}", False)
            return
        difference = float(np.abs(found - wanted).max())
        text = f"{difference:.1e} (largest output {np.abs(wanted).max():.1f})"
        self._add(export, what, text, difference <= TOLERANCE)

    def similar(self, export: str, what: str, found: Any, wanted: Any) -> None:
        """Compare vectors `[..., outputs]` of int8 with ours in float32."""
        import numpy as np

        found, wanted = np.asarray(found, float), np.asarray(wanted, float)
        norms = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
        cosine = float(((found * wanted).sum(-1) / norms).min())
        same = float((found.argmax(-1) == wanted.argmax(-1)).mean())
        text = f"{np.abs(found - wanted).max():.1e}, cosine at least {cosine:.4f}, "
        text += f"the same output is the largest at {same:.1%}"
        self._add(export, what, text, cosine >= INT8_COSINE)

    def equal(self, export: str, what: str, found: Iterable[Any], wanted: Iterable[Any]) -> None:
        """Compare two lists that must have the same elements in the same order."""
        found, wanted = list(found), list(wanted)
        differing = sum(x != y for x, y in zip(found, wanted, strict=False))
        differing += abs(len(found) - len(wanted))
        text = f"{differing:,} of {len(wanted):,} differ" if differing else f"{len(wanted):,} equal"
        self._add(export, what, text, not differing and bool(wanted))

    def _add(self, export: str, what: str, result: str, agrees: bool) -> None:
        row = {"export": export, "what": what, "result": result, "agrees": agrees}
        self._rows.append(row)
        print(f"{'' if agrees else 'NOT '}ok  {self.name}: {export}: {what}: {result}", flush=True)

    def finish(self) -> None:
        """Write the results; exit with 1 where one of them disagrees."""
        record = {"versions": self._versions, "rows": self._rows}
        self._file.write_text(json.dumps(record, indent=1) + "\n")
        if not self._rows or not all(row["agrees"] for row in self._rows):
            raise SystemExit(1)


def run_example(text: str) -> dict[str, Any]:
    """Run the first Python example of a text; return its names."""
    variables: dict[str, Any] = {"__name__": "example"}
    exec(text.split("```python\n")[1].split("```")[0], variables)
    return variables


def entities(found: Iterable[dict[str, Any]], text: str) -> list[tuple[int, int, str]]:
    """Return a pipeline's entities without the spaces that it counts in."""
    places = []
    for entity in found:
        start, end = entity["start"], entity["end"]
        inside = text[start:end]
        start, end = end - len(inside.lstrip()), start + len(inside.rstrip())
        places += [(start, end, entity["entity_group"])] if start < end else []
    return places


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def table(folder: Path) -> str:
    """Return all results in Markdown."""
    lines = ["| environment | export | compared | largest difference |", "|---|---|---|---|"]
    versions = ["| environment | versions |", "|---|---|"]
    for file in sorted(folder.glob("*.json")):
        record = json.loads(file.read_text())
        text = ", ".join(f"{name} {number}" for name, number in record["versions"].items())
        versions.append(f"| {file.stem} | {text} |")
        for row in record["rows"]:
            result = row["result"] if row["agrees"] else f"**{row['result']}**"
            lines.append(f"| {file.stem} | {row['export']} | {row['what']} | {result} |")
    return "\n".join([*versions, "", *lines])


if __name__ == "__main__":
    print(table(Path(sys.argv[1])))
