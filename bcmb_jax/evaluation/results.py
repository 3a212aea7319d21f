# SPDX-License-Identifier: Apache-2.0
"""Read and check the `results.json` of bcmb evaluate: for tasks, `speed` and `mlm`."""

import json
import math
import os
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from pathlib import Path, PurePath
from typing import Any, NamedTuple

from bcmb_jax.errors import InputError, reason

TEXT_BASELINE = "TF-IDF + linear"

FORMS: dict[str, Any] = tomllib.loads(
    resources.files(__package__).joinpath("results.toml").read_text("utf-8")
)
_TYPES: dict[str, type | tuple[type, ...]] = {
    "an object": dict,
    "text": str,
    "a whole number": int,
    "a number": (int, float),
    "true or false": bool,
    "a list": list,
}


class Result(NamedTuple):
    """A `results.json`, checked.

    Attributes:
      label: the model's name in tables, with that of the backend where it is not JAX.
      values: content of the file; for a fine-tuned model, with every key that may be null.
    """

    path: Path
    task: str
    label: str
    values: Mapping[str, Any]


def read_results(paths: Sequence[Path], names: Mapping[str, str]) -> list[Result]:
    """Read files and all results of folders, in order of the arguments and then of their paths.

    Args:
      names: labels by the names that models have in results. A model without a label is called by
        the shortest end of its path that differs from the others'.

    Raises:
      InputError: there are none; a file is malformed or incomplete; two files have the same task,
        model and backend; a name belongs to no model.
    """
    files = {file.resolve(): file for path in paths for file in _files(path)}
    if not files:
        raise InputError(
            f"no results.json in {', '.join(map(str, paths))}: bcmb evaluate writes them"
        )
    read = [(file, _read(file)) for file in files.values()]
    labels = _labels([x["model"] for _, x in read if x["backend"] != "text"], names)
    results = []
    for file, values in read:
        backend = values["backend"]
        label = TEXT_BASELINE if backend == "text" else labels[os.path.normpath(values["model"])]
        label += f" ({backend})" * (backend not in ("jax", "text"))
        results.append(Result(file, values["task"], label, values))
    first: dict[tuple, Path] = {}
    for x in results:
        setting = (x.values["protocol"], machine(x)) if x.task == "speed" else ()
        other = first.setdefault((x.task, x.label, *setting), x.path)
        if other is not x.path:
            raise InputError(
                f"{other} and {x.path} are both of {x.task} and {x.label}: give one of them, or "
                "tell their models apart with --names"
            )
    return results


def machine(result: Result) -> str:
    """Describe in words where a speed was measured."""
    device = result.values["device"]
    cores = f", {device['cores']} cores" if "cores" in device else ""
    return f"{device['count']} x {device['kind']}{cores}"


def _files(path: Path) -> Iterable[Path]:
    if path.is_dir():
        return sorted(path.rglob("results.json"))
    if not path.exists():
        raise InputError(f"{path} does not exist")
    return [path]


def _read(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        where = f"{file}, line {error.lineno}, column {error.colno}"
        raise InputError(f"{where}: not JSON: {error.msg}") from None
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{file} cannot be read: {reason(error)}") from None
    task = values.get("task") if isinstance(values, dict) else None
    # The task becomes part of file names.
    if not isinstance(task, str) or not re.fullmatch(r"[A-Za-z0-9][\w.-]*", task, re.ASCII):
        raise InputError(f"{file}: its task is not a name of letters, digits, _ . -")
    if task == "mlm":
        values = {"backend": "jax", "pseudo_perplexity": {}} | values
    is_fine_tuned = task not in ("mlm", "speed")
    _check(file, "the file", values, FORMS["fine_tuned" if is_fine_tuned else task])
    if is_fine_tuned:
        values = dict.fromkeys(FORMS["may_be_null"]) | values
        for key, form in FORMS["may_be_null"].items():
            if values[key] is not None:
                _check(file, key, values[key], form)
        _check_scores(file, values)
    return values


def _check(file: Path, name: str, value: Any, form: Any) -> None:
    """Raise `InputError` unless a value has a form of `results.toml`."""
    containers: dict[type, str] = {dict: "an object", list: "a list"}
    expected = containers.get(type(form), str(form))
    fits = isinstance(value, _TYPES[expected])
    if not fits or (isinstance(value, bool) and expected != "true or false"):
        raise InputError(f"{file}: {name} is {_kind(value)}, not {expected}")
    if isinstance(form, dict):
        for key, inner in form.items():
            if key != "*" and key not in value:
                raise InputError(f"{file}: {name} has no {key!r}")
            places = enumerate(value) if key == "*" else [(key, key)]  # of "*" no name is shown
            for place, each in places:
                part = f"{name}[{place}]" if key == "*" else f"{name}.{key}"
                _check(file, part.removeprefix("the file."), value[each], inner)
    elif isinstance(form, list):
        for i, each in enumerate(value):
            _check(file, f"{name}[{i}]", each, form[0])


def _kind(value: object) -> str:
    """Return in words what a value is, for a message that does not quote it."""
    kinds = {kind: name for name, kind in reversed(_TYPES.items()) if isinstance(kind, type)}
    return "nothing" if value is None else kinds.get(type(value), "a number")


def _check_scores(file: Path, values: Mapping[str, Any]) -> None:
    """Check that scores are between 0 and 1 and one for each seed, and a confusion square."""
    seeds, per_seed = values["seeds"], values["per_seed"]
    if not seeds or len(per_seed) != len(seeds):
        raise InputError(f"{file} has {len(per_seed)} scores of {len(seeds)} seeds")
    if len(values["interval"]) != 2:
        raise InputError(f"{file}: interval has {len(values['interval'])} ends, not 2")
    named = {key: values[key] for key in ("median", "mean")}
    for key in ("per_seed", "interval"):
        named |= {f"{key}[{i}]": x for i, x in enumerate(values[key])}
    for key, x in named.items():
        if not (math.isfinite(x) and 0 <= x <= 1):
            raise InputError(f"{file}: {key} is {x}, not between 0 and 1")
    if values["kind"] == "single_label" and values["confusion"]:
        labels, counts = values["confusion"]["labels"], values["confusion"]["counts"]
        _check(file, "confusion.counts", counts, [["a whole number"]])
        if {len(labels)} != {len(counts), *map(len, counts)}:
            raise InputError(f"{file}: confusion.counts is not {len(labels)} by {len(labels)}")


def _labels(models: Sequence[str], names: Mapping[str, str]) -> dict[str, str]:
    """Return a label for each model: the given one, or as few last parts of its path as needed."""
    normal = list(dict.fromkeys(map(os.path.normpath, models)))
    given = {os.path.normpath(model): label for model, label in names.items()}
    for model in given:
        if model not in normal:
            raise InputError(f"--names {model}: no result is of it, but of {', '.join(normal)}")
    parts = {model: PurePath(model).parts for model in normal}
    labels = {}
    for model in normal:
        whole = len(parts[model])
        others = [parts[x] for x in normal if x != model]
        alone = (n for n in range(1, whole) if all(x[-n:] != parts[model][-n:] for x in others))
        labels[model] = given.get(model) or "/".join(parts[model][-next(alone, whole) :])
    return labels
