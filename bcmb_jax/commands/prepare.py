# SPDX-License-Identifier: Apache-2.0
"""Turn text into token shards."""

import argparse
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from bcmb_jax import hub
from bcmb_jax.agreements import Agreement, describe
from bcmb_jax.data.canaries import Planting
from bcmb_jax.data.clean import Cleaning
from bcmb_jax.data.ingest import ALONE, FORMATS, SOURCES, Bounds, read
from bcmb_jax.data.ingest.files import Records, list_files
from bcmb_jax.data.ingest.peek import peek
from bcmb_jax.data.ledger import list_sources
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.report import StageProgress, summarise
from bcmb_jax.data.secret import NO_SECRET, check_value, choose_secret
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError
from bcmb_jax.terminal import Display, say_next

ALL = "all"
INPUT_DIGEST = "input_sha256"
"""Option of a report that identifies the content of the input's files."""


def main(arguments: argparse.Namespace) -> None:
    """Prepare what the arguments say, or print what is asked for."""
    if arguments.list_sources:
        print(*list_sources(), sep="\n")
        return
    if arguments.peek:
        print(*peek(_read(arguments, arguments.source, arguments.input, check=False)), sep="\n")
        return
    if arguments.workers is not None:
        os.environ["RAYON_NUM_THREADS"] = str(arguments.workers)  # read at tokenizers' first use
    access = {"online": arguments.online, "token_file": arguments.hub_token_file}
    hub.fetch(arguments.tokenizer, "tokenizer", **access)
    if arguments.source == ALL:
        folders = _prepare_all(arguments)
        places = ",".join("{}" for _ in folders)
        say_next(f"bcmb train --config phase1 --config.data.train={places} --plan", *folders)
    else:
        _prepare(
            arguments,
            arguments.source,
            arguments.input,
            arguments.output,
            load_tokenizer(arguments.tokenizer, reviewed=arguments.tokenizer_reviewed),
            _secret(arguments, [arguments.source]),
        )
        what = "bcmb train --config continue:{} --config.init_from=MODEL --plan"
        say_next(what, arguments.output)


def _prepare_all(arguments: argparse.Namespace) -> list[Path]:
    """Each `NAME=PATH` of the input to its own folder; what is there already is kept."""
    paths: dict[str, list[str]] = {}
    for pair in arguments.input:
        name, equals, path = pair.partition("=")
        if not equals or name not in SOURCES:
            raise InputError(
                f"--source {ALL} takes NAME=PATH, not {pair!r}; names are {', '.join(SOURCES)}"
            )
        paths.setdefault(name, []).append(path)
    if arguments.text_column or arguments.group_column or arguments.skip_column:
        raise InputError(f"--source {ALL}: each source has its own text, group and skip column")
    for name, inputs in paths.items():
        list_files(inputs, SOURCES[name].files)  # all are there before the first is begun
    tokenizer = load_tokenizer(arguments.tokenizer, reviewed=arguments.tokenizer_reviewed)
    secret = _secret(arguments, list(paths))
    earlier: list[Path] = []
    for name, inputs in paths.items():
        output = arguments.output / name
        if output.exists() and not arguments.overwrite:
            print(f"{output}: reading its input, to see whether it is the same", flush=True)
            cleaned = _cleaning(arguments, name, secret, earlier).options()
            digest = {INPUT_DIGEST: _read(arguments, name, inputs, check=False).digest()}
            asked = {**_asked(arguments, name, secret), **cleaned, **digest}
            _check_same(output, asked, _names(inputs), tokenizer)
            print(f"{output}: kept as it is; --overwrite makes it anew")
        else:
            try:
                _prepare(arguments, name, inputs, output, tokenizer, secret, earlier)
            except InputError as error:
                kept = "what is done is kept, and the command, run again, goes on with the rest"
                raise InputError(f"{name}: {error} ({kept})") from error
        earlier.append(output)
    return earlier


def _check_same(
    output: Path, asked: dict[str, Any], inputs: list[str], tokenizer: Tokenizer
) -> None:
    try:
        options = json.loads((output / "report.json").read_text(encoding="utf-8"))["options"]
        made_with = open_shards(output / "train").tokenizer_fingerprint
    except (OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{output} is no finished output of this command: move it away, or choose another "
            "--output"
        ) from error
    # Reports of version 0.1 lack these: its bound is taken for today's, inputs are told by names.
    if INPUT_DIGEST not in options and options.get("input", inputs) != inputs:
        options[INPUT_DIGEST] = None
    options = {key: asked[key] for key in (INPUT_DIGEST, "max_record_bytes")} | options
    differ = [
        f"{k} was {options.get(k)!r}, now {v!r}"
        for k, v in asked.items()
        if options.get(k) != v and k not in ("secret", INPUT_DIGEST)
    ]
    if options[INPUT_DIGEST] != asked[INPUT_DIGEST]:
        differ.append("the content of its input's files was another")
    if made_with != tokenizer.fingerprint:
        differ.append("its tokenizer was another")
    if (before := options.get("secret")) != asked["secret"]:
        differ.append("--secret-file was " + ("another" if before else NO_SECRET))
    if differ:
        raise InputError(
            f"{output} was prepared otherwise ({'; '.join(differ)}): ask for the same, choose "
            "another --output, or add --overwrite, which makes all sources anew"
        )


def _secret(arguments: argparse.Namespace, names: Sequence[str]) -> bytes:
    """Return the secret for sources of which any may hold persons, or else none."""
    needed = any(_may_hold_persons(arguments, name) for name in names)
    return choose_secret(arguments.secret_file, needed=needed, say=print)


def _may_hold_persons(arguments: argparse.Namespace, name: str) -> bool:
    """Return whether records may be of persons; files of one's own may, even by their names."""
    source = {**FORMATS, **SOURCES}.get(name)
    return bool(arguments.group_column or (source and source.persons))


def _cleaning(
    arguments: argparse.Namespace, name: str, secret: bytes, earlier: Sequence[Path] = ()
) -> Cleaning:
    """Return the cleaning that was asked for; texts of `earlier` sources count as duplicates."""
    cleaning = Cleaning(
        unwrap_lines=arguments.unwrap_lines,
        placeholders=arguments.placeholders,
        min_characters=arguments.min_characters,
        exact_duplicates=arguments.exact_duplicates,
        near_duplicates=arguments.near_duplicates,
        against=arguments.not_in,
        seed=arguments.seed,
        secret=secret if _may_hold_persons(arguments, name) else b"",
        earlier_secret=secret,
        date_shift=arguments.date_shift,
    )
    if not cleaning.looks_for_duplicates:
        return cleaning
    return replace(cleaning, against=[*cleaning.against, *earlier])


def _asked(arguments: argparse.Namespace, name: str, secret: bytes) -> dict[str, Any]:
    """As a report has it among its options, beside what is cleaned."""
    return {
        "source": name,
        "text_column": arguments.text_column,
        "group_column": arguments.group_column,
        "delimiter": arguments.delimiter,
        "encoding": arguments.encoding,
        "skip_column": arguments.skip_column,
        "licenses": _licenses(arguments, name) or None,
        "max_record_bytes": arguments.max_record_bytes,
        "validation_fraction": arguments.validation_fraction,
        "seed": arguments.seed,
        "canaries": _planting(arguments).options(),
        "secret": check_value(secret) if _may_hold_persons(arguments, name) else None,
    }


def _names(inputs: Sequence[str]) -> list[str]:
    return [Path(path).name for path in inputs]


def _planting(arguments: argparse.Namespace) -> Planting:
    return Planting(arguments.canaries, arguments.canary_repeats)


def _licenses(arguments: argparse.Namespace, name: str) -> list[str]:
    """Return the licences of articles to keep; beside other sources they are only of PMC."""
    if arguments.source == ALL and name != "pmc":
        return []
    return [part.strip() for part in (arguments.licenses or "").split(",") if part.strip()]


def _read(
    arguments: argparse.Namespace,
    name: str,
    inputs: list[str],
    *,
    progress: Callable[..., None] | None = None,
    check: bool = True,
) -> Records:
    return read(
        inputs,
        name,
        arguments.text_column,
        arguments.group_column,
        arguments.skip_column,
        licenses=_licenses(arguments, name),
        progress=progress,
        delimiter=arguments.delimiter,
        encoding=arguments.encoding,
        all_parts=arguments.all_parts,
        bounds=Bounds(arguments.max_record_bytes, arguments.max_expansion),
        check=check,
    )


def _prepare(
    arguments: argparse.Namespace,
    name: str,
    inputs: list[str],
    output: Path,
    tokenizer: Tokenizer,
    secret: bytes,
    earlier: Sequence[Path] = (),
) -> None:
    output = output.resolve()
    source = SOURCES.get(name)
    licenses = _licenses(arguments, name)
    own = source.licence if source else ""
    own = f"each article's own, one of {', '.join(licenses)}" if licenses else own
    license = own if arguments.license is None else arguments.license
    display = Display()
    line = StageProgress(lambda: records.fraction, display)
    cleaning = _cleaning(arguments, name, secret, earlier)
    records = _read(arguments, name, inputs, progress=line)
    try:
        report = prepare(
            records,
            tokenizer,
            output,
            source=output.name,
            validation_fraction=arguments.validation_fraction,
            seed=arguments.seed,
            secret=cleaning.secret,
            cleaning=cleaning,
            canaries=_planting(arguments),
            options={**_asked(arguments, name, secret), INPUT_DIGEST: records.digest()},
            inputs=_names(inputs),
            license=license,
            overwrite=arguments.overwrite,
            progress=line,
        )
    finally:
        display.close()
    grouped = bool(arguments.group_column or (source and source.group != ALONE))
    print(*summarise(report, output, records.written, grouped=grouped), sep="\n")
    if not license:
        print(describe((Agreement(output.name),)))
