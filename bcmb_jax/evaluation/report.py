# SPDX-License-Identifier: Apache-2.0
"""The paper's Tables 2, 3, 5 and 6 of our results, the published rows below ours: Markdown, JSON
and plots."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bcmb_jax.evaluation import published
from bcmb_jax.evaluation.examples import SPLITS
from bcmb_jax.evaluation.plots import draw
from bcmb_jax.evaluation.results import Result, machine

NONE = "–"


def write(results: Sequence[Result], output: Path) -> list[Path]:
    """`tables.md`, `tables.json` and the plots, in a folder. Returns what was written."""
    output.mkdir(parents=True, exist_ok=True)
    pictures = draw(by_task(results), _of("speed", results), output)
    text = markdown(results)
    if pictures:
        text += "\n## Plots\n" + "".join(f"\n![{x.stem}]({x.name})\n" for x in pictures)
    table, data = output / "tables.md", output / "tables.json"
    table.write_text(text, encoding="utf-8")
    data.write_text(json.dumps(records(results), indent=2) + "\n", encoding="utf-8")
    return [table, data, *pictures]


def by_task(results: Sequence[Result]) -> dict[str, list[Result]]:
    """Fine-tuned results, the paper's tasks first and in its order."""
    tasks = dict.fromkeys(x.task for x in results if x.task not in ("speed", "mlm"))
    order = [x for x in published.TASKS if x in tasks]
    order += [x for x in tasks if x not in order]
    return {task: [x for x in results if x.task == task] for task in order}


def markdown(results: Sequence[Result]) -> str:
    """All tables that there are results for."""
    tasks = by_task(results)
    parts = ["# Results beside the paper's"]
    if tasks:
        parts += [_performance(tasks), _runs(tasks), _learning_rates(tasks), _statistics(tasks)]
        parts += [_by_class(task, found) for task, found in tasks.items()]
    parts += [make(results) for make in (_speed, _mlm)]
    return "\n\n".join(x for x in parts if x) + "\n"


def records(results: Sequence[Result]) -> dict[str, Any]:
    """Ours and the published numbers, for programs. Ours are fractions, the paper's percent."""
    ours = [
        {"file": str(x.path), "label": x.label}
        | {k: v for k, v in x.values.items() if k not in ("curves", "confusion", "by_class")}
        for x in results
    ]
    return {
        "ours": ours,
        "published": {
            "table2": {
                x.name: dict(zip(published.TASKS, x.scores, strict=True)) for x in published.MODELS
            },
            "table3": {
                x.name: dict(zip(published.SPEED_SETS, x.speed, strict=False))
                for x in published.MODELS
                if x.speed
            },
            "table5": {
                size: {task: rates[size] for task, rates in published.LEARNING_RATES.items()}
                for size in published.SIZES
            },
            "table6": {task: x._asdict() for task, x in published.STATISTICS.items()},
        },
    }


def _performance(tasks: Mapping[str, Sequence[Result]]) -> str:
    columns = [
        f"{published.title(task)} ({found[0].values['metric']})" for task, found in tasks.items()
    ]
    rows = []
    for label in _models(tasks):
        cells = []
        for found in tasks.values():
            mine = next((x.values for x in found if x.label == label), None)
            cells.append(f"{_percent(mine['median'])} {_interval(mine)}" if mine else NONE)
        rows.append([label, *cells])
    for model in published.MODELS:
        theirs = dict(zip(published.TASKS, model.scores, strict=True))
        cells = [NONE if theirs.get(task) is None else f"{theirs[task]:.1f}" for task in tasks]
        if any(cell != NONE for cell in cells):
            rows.append([f"*{model.name}, published*", *cells])
    about = (
        "F1 in percent: median over seeds, and a 95 % bootstrap interval over test examples of the "
        "mean over seeds. Rows in italics are the paper's medians over 5 seeds (phase 1: of its "
        "section 4.1)."
    )
    notes = [
        f"- {published.title(task)}: {_cell(note)}"
        for task, found in tasks.items()
        for note in dict.fromkeys(y for x in found for y in x.values["dataset"]["notes"])
    ]
    table = _table(["model", *columns], rows)
    return _section("Performance (Table 2)", table, about, "\n".join(notes))


def _runs(tasks: Mapping[str, Sequence[Result]]) -> str:
    rows = []
    for task, found in tasks.items():
        for x in found:
            v = x.values
            names = [k for k in v["scores"][0] if k != v["metric"]] if v["scores"] else []
            others = {k: sum(of[k] for of in v["scores"]) / len(v["scores"]) for k in names}
            truncated = v["truncated"] or {}
            cut = ", ".join(f"{n} of {split}" for split, n in truncated.items() if n)
            rows.append(
                [
                    published.title(task),
                    x.label,
                    f"{_percent(v['mean'])} ± {_percent(v['spread'])}",
                    " ".join(map(_percent, v["per_seed"])),
                    ", ".join(f"{k} {_percent(mean)}" for k, mean in others.items()),
                    str(v["epochs"] or NONE),
                    cut or "none",
                ]
            )
    columns = ["task", "model", "mean ± spread", "seeds", "other scores", "epochs", "truncated"]
    about = "Spread: standard deviation over seeds. Other scores: means over seeds."
    return _section("Runs", _table(columns, rows), about)


def _by_class(task: str, found: Sequence[Result]) -> str:
    scored = {x.label: {row["class"]: row for row in x.values["by_class"] or []} for x in found}
    support = {name: row["support"] for of in scored.values() for name, row in of.items()}
    rows = [
        [
            name,
            f"{count:,}",
            *(_percent(of[name]["f1"]) if name in of else NONE for of in scored.values()),
        ]
        for name, count in sorted(support.items(), key=lambda x: -x[1])
    ]
    about = "F1 in percent of the seed whose score is the median; how often a class is true."
    table = _table(["class", "true", *scored], rows)
    return _section(f"{published.title(task)} by class", table, about) if rows else ""


def _learning_rates(tasks: Mapping[str, Sequence[Result]]) -> str:
    rows = []
    for label in _models(tasks):
        cells = []
        for found in tasks.values():
            mine = next((x.values for x in found if x.label == label), None)
            rate = mine["learning_rate"] or None if mine else None  # 0: of text, none
            searched = f" (best of {len(mine['grid'])})" if mine and mine["grid"] else ""
            cells.append(NONE if rate is None else f"{rate:g}{searched}")
        if any(cell != NONE for cell in cells):
            rows.append([label, *cells])
    if not rows:
        return ""
    for size in published.SIZES:
        theirs = published.LEARNING_RATES
        cells = [f"{theirs[task][size]:g}" if task in theirs else NONE for task in tasks]
        if any(cell != NONE for cell in cells):
            rows.append([f"*{size}, published*", *cells])
    return _section(
        "Learning rates (Table 5)", _table(["model", *(published.title(x) for x in tasks)], rows)
    )


def _statistics(tasks: Mapping[str, Sequence[Result]]) -> str:
    rows = []
    for task, found in tasks.items():
        groups: dict[tuple[str, ...], list[str]] = {}
        # Text last: it counts words, and joins a model that read the same examples.
        for x in sorted(found, key=lambda x: x.values["backend"] == "text"):
            data = x.values["dataset"]
            cells = [str(data["labels"])]
            cells += [_number(data["examples"].get(split), ",") for split in SPLITS]
            if x.values["backend"] == "text":
                same = [group for group in groups if group[: len(cells)] == tuple(cells)]
                cells = list(same[0]) if same else [*cells, *[NONE] * len(SPLITS)]
            else:
                cells += [_number(data["mean_tokens"].get(split), ",.1f") for split in SPLITS]
            groups.setdefault(tuple(cells), []).append(x.label)
        rows += [
            [published.title(task), ", ".join(models), *cells] for cells, models in groups.items()
        ]
        if theirs := published.STATISTICS.get(task):
            cells = [str(theirs.labels), *(f"{n:,}" for n in theirs.examples)]
            cells += [f"{n:,.1f}" for n in theirs.mean_tokens]
            rows.append([published.title(task), "*published*", *cells])
    columns = ["task", "models", "labels", *SPLITS, *(f"{x}, mean tokens" for x in SPLITS)]
    return _section("Datasets (Table 6)", _table(columns, rows))


def _speed(results: Sequence[Result]) -> str:
    measured = _of("speed", results)
    if not measured:
        return ""
    found = dict.fromkeys(y["set"] for x in measured for y in x.values["results"])
    sets = [x for x in published.SPEED_SETS if x in found]
    sets += [x for x in found if x not in sets]
    rows = []
    for x in measured:
        v = x.values
        rate = "nominal_tokens_per_second" if v["protocol"] == "published" else "tokens_per_second"
        for padded in dict.fromkeys(y["padded"] for y in v["results"]):
            own = {y["set"]: y for y in v["results"] if y["padded"] == padded}
            documents = sorted({y["documents"] for y in own.values()})
            cells = [f"{own[s][rate] / 1000:,.1f}" if s in own else NONE for s in sets]
            how = f"{v['protocol']}, {'padded' if padded else 'packed'}"
            rows.append([x.label, how, machine(x), _range(documents), *cells])
    for model in published.MODELS:
        theirs = dict(zip(published.SPEED_SETS, model.speed, strict=False))
        cells = [f"{theirs[s]:.1f}" if s in theirs else NONE for s in sets]
        if any(cell != NONE for cell in cells):
            where = [published.SPEED_MACHINE, published.SPEED_DOCUMENTS]
            rows.append([f"*{model.name}, published*", "published", *where, *cells])
    about = (
        "Thousands of tokens a second. The protocol `published` counts as the paper does: the mean "
        "length a set was drawn with, whatever its documents hold; `honest` counts true tokens. "
        "Speeds on different devices are not comparable."
    )
    columns = ["model", "protocol", "device", "documents", *sets]
    return _section("Inference speed (Table 3)", _table(columns, rows), about)


def _mlm(results: Sequence[Result]) -> str:
    rows, baselines = [], set()
    for x in _of("mlm", results):
        for source, by in x.values["sources"].items():
            for predictor, of in by.items():
                name = x.label if predictor == "model" else f"*{predictor}*"
                alone = x.values["pseudo_perplexity"] if predictor == "model" else {}
                cells = [source, name, f"{of['loss']:.4f}"]
                cells += [_percent(of["masked_accuracy"]), _percent(of["top5_accuracy"])]
                cells += [f"{of['predicted_tokens']:,}", _number(alone.get(source), ",.2f")]
                if predictor == "model" or tuple(cells) not in baselines:
                    rows.append(cells)
                    baselines.add(tuple(cells))
    if not rows:
        return ""
    columns = ["source", "model", "loss", "accuracy", "top 5", "tokens", "pseudo-perplexity"]
    rows.sort(key=lambda cells: (cells[0], cells[1].startswith("*")))  # models first
    return _section("Masked tokens", _table(columns, rows))


def _of(task: str, results: Sequence[Result]) -> list[Result]:
    return [x for x in results if x.task == task]


def _models(tasks: Mapping[str, Sequence[Result]]) -> list[str]:
    return list(dict.fromkeys(x.label for found in tasks.values() for x in found))


def _section(name: str, *parts: str) -> str:
    return "\n\n".join([f"## {name}", *(part for part in parts if part)])


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(map(_cell, cells)) + " |" for cells in lines)


def _cell(text: str) -> str:
    """On one line, and without ending its cell: names come out of files."""
    return "".join(c if c.isprintable() else " " for c in text).replace("|", r"\|")


def _percent(x: float) -> str:
    return f"{100 * x:.1f}"


def _interval(values: Mapping[str, Any]) -> str:
    low, high = values["interval"]
    return f"[{_percent(low)}, {_percent(high)}]"


def _number(x: float | None, form: str) -> str:
    return NONE if x is None else format(x, form)


def _range(numbers: Sequence[int]) -> str:
    return " to ".join(f"{n:,}" for n in dict.fromkeys((numbers[0], numbers[-1])))
