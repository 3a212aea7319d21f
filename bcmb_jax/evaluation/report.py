# SPDX-License-Identifier: Apache-2.0
"""Write our results as the paper's Tables 2, 3, 5 and 6, with the published rows below ours."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from bcmb_jax.evaluation import published
from bcmb_jax.evaluation.examples import SPLITS
from bcmb_jax.evaluation.plots import draw
from bcmb_jax.evaluation.published import title
from bcmb_jax.evaluation.results import Result, machine
from bcmb_jax.files import write_json, write_text
from bcmb_jax.private import make_directory
from bcmb_jax.sharing import shared_path

NONE = "–"
Tasks = Mapping[str, Sequence[Result]]
"""Results by task."""


def write(results: Sequence[Result], output: Path) -> list[Path]:
    """Write `tables.md`, `tables.json` and the plots into a folder, and return their paths."""
    make_directory(output)
    tasks, speed, _ = _by_task(results)
    pictures = draw(tasks, speed, output)
    text = markdown(results)
    if pictures:
        text += "\n## Plots\n" + "".join(f"\n![{x.stem}]({x.name})\n" for x in pictures)
    table, data = output / "tables.md", output / "tables.json"
    write_text(table, text)
    write_json(data, _records(results))
    return [table, data, *pictures]


def markdown(results: Sequence[Result]) -> str:
    """Return all tables that there are results for."""
    tasks, speed, mlm = _by_task(results)
    parts = ["# Results beside the paper's"]
    if tasks:
        parts += [_performance(tasks), _runs(tasks), _learning_rates(tasks), _statistics(tasks)]
        parts += [_by_class(task, found) for task, found in tasks.items()]
    parts += [_speed(speed), _mlm(mlm)]
    return "\n\n".join(filter(None, parts)) + "\n"


def _by_task(results: Sequence[Result]) -> tuple[Tasks, Sequence[Result], Sequence[Result]]:
    """Return results of fine-tuning by task, the paper's tasks first, of speed and of mlm."""
    order = dict.fromkeys([*published.TASKS, *(x.task for x in results), "speed", "mlm"])
    tasks = {task: [x for x in results if x.task == task] for task in order}
    speed, mlm = tasks.pop("speed"), tasks.pop("mlm")
    return {task: found for task, found in tasks.items() if found}, speed, mlm


def _records(results: Sequence[Result]) -> dict[str, Any]:
    """Return our numbers (fractions) and the published ones (percent), for programs."""
    left_out = ("curves", "confusion", "by_class")
    ours = [
        {"file": shared_path(str(x.path)), "label": x.label}
        | {k: v for k, v in x.values.items() if k not in left_out}
        for x in results
    ]
    theirs = {
        "table2": published.SCORES,
        "table3": published.SPEEDS,
        "table5": _rates_by_size(),
        "table6": {task: x._asdict() for task, x in published.STATISTICS.items()},
    }
    return {"ours": ours, "published": theirs}


def _performance(tasks: Tasks) -> str:
    def cell(x: Mapping[str, Any] | None) -> str:
        return f"{_percent(x['median'])} [{_percents(x['interval'], ', ')}]" if x else NONE

    rows = [[label, *map(cell, values)] for label, values in _by_model(tasks)]
    rows += _published_rows(published.SCORES, tasks, ".1f")
    about = (
        "F1 in percent: median over seeds, and a 95 % bootstrap interval over test examples of the "
        "mean over seeds. Rows in italics are the paper's medians over 5 seeds (phase 1: of its "
        "section 4.1)."
    )
    notes = [
        f"- {title(task)}: {_cell(note)}"
        for task, found in tasks.items()
        for note in dict.fromkeys(y for x in found for y in x.values["dataset"]["notes"])
    ]
    columns = [f"{title(task)} ({found[0].values['metric']})" for task, found in tasks.items()]
    return _section("Performance (Table 2)", ["model", *columns], rows, about, "\n".join(notes))


def _runs(tasks: Tasks) -> str:
    rows = []
    for task, x in ((task, x) for task, found in tasks.items() for x in found):
        values, scores = x.values, x.values["scores"]
        names = [name for name in scores[0] if name != values["metric"]] if scores else []
        cut = [f"{n} of {split}" for split, n in (values["truncated"] or {}).items() if n]
        rows.append(
            [
                title(task),
                x.label,
                _percents((values["mean"], values["spread"]), " ± "),
                _percents(values["per_seed"], " "),
                ", ".join(f"{name} {_percent(fmean(y[name] for y in scores))}" for name in names),
                str(values["epochs"] or NONE),
                ", ".join(cut) or "none",
            ]
        )
    columns = ["task", "model", "mean ± spread", "seeds", "other scores", "epochs", "truncated"]
    about = "Spread: standard deviation over seeds. Other scores: means over seeds."
    return _section("Runs", columns, rows, about)


def _by_class(task: str, found: Sequence[Result]) -> str:
    scored = {x.label: {row["class"]: row for row in x.values["by_class"] or []} for x in found}
    support = {name: row["support"] for rows in scored.values() for name, row in rows.items()}
    rows = [
        [name, f"{count:,}"]
        + [_percent(of[name]["f1"]) if name in of else NONE for of in scored.values()]
        for name, count in sorted(support.items(), key=lambda x: -x[1])
    ]
    about = "F1 in percent of the seed whose score is the median; how often a class is true."
    return _section(f"{title(task)} by class", ["class", "true", *scored], rows, about)


def _learning_rates(tasks: Tasks) -> str:
    def cell(x: Mapping[str, Any] | None) -> str:
        if not x or not x["learning_rate"]:  # the text baseline has 0
            return NONE
        return f"{x['learning_rate']:g}" + (f" (best of {len(x['grid'])})" if x["grid"] else "")

    rows = [[label, *map(cell, values)] for label, values in _by_model(tasks)]
    rows = [row for row in rows if {*row[1:]} != {NONE}]
    if rows:
        rows += _published_rows(_rates_by_size(), tasks, "g")
    return _section("Learning rates (Table 5)", ["model", *map(title, tasks)], rows)


def _statistics(tasks: Tasks) -> str:
    rows = []
    for task, found in tasks.items():
        groups: dict[tuple[str, ...], list[str]] = {}
        # Text last: it counts words, and joins a model that read the same examples.
        for x in sorted(found, key=lambda x: x.values["backend"] == "text"):
            data = x.values["dataset"]
            counts = [_number(data["examples"].get(split), ",") for split in SPLITS]
            means = [_number(data["mean_tokens"].get(split), ",.1f") for split in SPLITS]
            cells = (str(data["labels"]), *counts)
            if x.values["backend"] == "text":
                same = [group for group in groups if group[: len(cells)] == cells]
                key = same[0] if same else (*cells, *[NONE] * len(SPLITS))
            else:
                key = (*cells, *means)
            groups.setdefault(key, []).append(x.label)
        rows += [[title(task), ", ".join(models), *cells] for cells, models in groups.items()]
        if theirs := published.STATISTICS.get(task):
            numbers = [f"{n:,}" for n in (theirs.labels, *theirs.examples, *theirs.mean_tokens)]
            rows.append([title(task), "*published*", *numbers])
    columns = ["task", "models", "labels", *SPLITS, *(f"{x}, mean tokens" for x in SPLITS)]
    return _section("Datasets (Table 6)", columns, rows)


def _speed(results: Sequence[Result]) -> str:
    measured = dict.fromkeys(y["set"] for x in results for y in x.values["results"])
    sets = dict.fromkeys([*(x for x in published.SPEED_SETS if x in measured), *measured])
    rows = []
    for x in results:
        protocol, lines = x.values["protocol"], x.values["results"]
        rate = "nominal_tokens_per_second" if protocol == "published" else "tokens_per_second"
        for padded in dict.fromkeys(y["padded"] for y in lines):
            own = {y["set"]: y for y in lines if y["padded"] == padded}
            documents = sorted({y["documents"] for y in own.values()})
            span = " to ".join(f"{n:,}" for n in dict.fromkeys((documents[0], documents[-1])))
            cells = [_number(own[s][rate] / 1000 if s in own else None, ",.1f") for s in sets]
            layout = f"{protocol}, {'padded' if padded else 'packed'}"
            rows.append([x.label, layout, machine(x), span, *cells])
    setting = ("published", published.SPEED_MACHINE, published.SPEED_DOCUMENTS)
    rows += _published_rows(published.SPEEDS, sets, ".1f", setting)
    about = (
        "Thousands of tokens a second. The protocol `published` counts as the paper does: the mean "
        "length a set was drawn with, whatever its documents hold; `honest` counts true tokens. "
        "Speeds on different devices are not comparable."
    )
    columns = ["model", "protocol", "device", "documents", *sets]
    return _section("Inference speed (Table 3)", columns, rows, about)


def _mlm(results: Sequence[Result]) -> str:
    rows: dict[tuple[str, ...], None] = {}  # baselines on the same shards are equal, and stand once
    for x in results:
        for source, predictors in x.values["sources"].items():
            for predictor, scores in predictors.items():
                is_model = predictor == "model"
                singly = x.values["pseudo_perplexity"].get(source) if is_model else None
                cells = (
                    source,
                    x.label if is_model else f"*{predictor}*",
                    f"{scores['loss']:.4f}",
                    _percent(scores["masked_accuracy"]),
                    _percent(scores["top5_accuracy"]),
                    f"{scores['predicted_tokens']:,}",
                    _number(singly, ",.2f"),
                )
                rows[cells] = None
    columns = ["source", "model", "loss", "accuracy", "top 5", "tokens", "pseudo-perplexity"]
    ordered = sorted(rows, key=lambda cells: (cells[0], cells[1].startswith("*")))  # models first
    return _section("Masked tokens", columns, ordered)


def _by_model(tasks: Tasks) -> Iterator[tuple[str, list[Mapping[str, Any] | None]]]:
    """Yield every model's label and values, one for each task."""
    for label in dict.fromkeys(x.label for found in tasks.values() for x in found):
        yield (
            label,
            [next((x.values for x in y if x.label == label), None) for y in tasks.values()],
        )


def _rates_by_size() -> dict[str, dict[str, float]]:
    rates = published.LEARNING_RATES
    return {size: {task: rates[task][size] for task in rates} for size in ("base", "large")}


def _published_rows(
    rows: Mapping[str, published.Values],
    columns: Iterable[str],
    form: str,
    setting: Iterable[str] = (),
) -> Iterator[list[str]]:
    """Yield the published rows that have a number in any of the columns."""
    for name, values in rows.items():
        cells = [_number(values.get(column), form) for column in columns]
        if any(cell != NONE for cell in cells):
            yield [f"*{name}, published*", *setting, *cells]


def _section(
    name: str, columns: Sequence[str], rows: Sequence[Sequence[str]], about: str = "", end: str = ""
) -> str:
    """Return a heading, a table, and what there is to say about it; nothing without rows."""
    lines = [columns, ["---"] * len(columns), *rows]
    table = "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)
    return "\n\n".join(filter(None, (f"## {name}", table, about, end))) if rows else ""


def _cell(text: str) -> str:
    """Keep a text, which may come out of a file, on one line and inside its cell."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", r"\|")


def _percent(x: float) -> str:
    return f"{100 * x:.1f}"


def _percents(values: Iterable[float], separator: str) -> str:
    return separator.join(map(_percent, values))


def _number(x: float | None, form: str) -> str:
    return NONE if x is None else format(x, form)
