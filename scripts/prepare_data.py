# SPDX-License-Identifier: Apache-2.0
"""Turns text into token shards: `python scripts/prepare_data.py --source csv --input notes.csv …`.

Writes OUTPUT/train, OUTPUT/validation, OUTPUT/tokenizer and OUTPUT/report.json.
"""

import argparse
import os
import sys
from pathlib import Path

from bcmb_jax.data.ingest import FORMATS, SOURCES, read
from bcmb_jax.data.ingest.groups import ALONE
from bcmb_jax.data.prepare import ProgressLine, prepare
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError


def main() -> int:
    """Returns the exit status: 0, or 2 for something that the user can put right."""
    parser = _parser()
    arguments = parser.parse_args()
    if arguments.list_sources:
        _list_sources()
        return 0
    for name in ("source", "input", "tokenizer", "output"):
        if not getattr(arguments, name):
            parser.error(f"--{name} is needed")
    try:
        _prepare(arguments)
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _list_sources() -> None:
    for name, format in FORMATS.items():
        print(f"{name:8} {format.about} ({' '.join(format.suffixes)})")
    for name, source in SOURCES.items():
        text = f", text in {source.text_column}" if source.text_column else ""
        paper = "no row of Table 1"
        if source.paper:
            paper = f"{source.paper.samples:,} samples, {source.paper.tokens:,} M tokens"
        print(
            f"\n{name}: {source.title} ({source.kind}), {source.url}\n"
            f"  files    {' '.join(source.files)} (also .gz){text}\n"
            f"  group    {source.group}\n"
            f"  licence  {source.licence}\n"
            f"  paper    {paper}\n"
            f"  about    {source.about}"
        )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Turn text into token shards.")
    parser.add_argument("--list-sources", action="store_true", help="print the sources and stop")
    parser.add_argument("--source", help="what the input is; see --list-sources")
    parser.add_argument("--input", nargs="+", metavar="PATH", help="files, or folders of them")
    parser.add_argument("--tokenizer", help="a folder with tokenizer.json, or a hub id")
    parser.add_argument("--output", type=Path, help="folder to write; its name names the source")
    parser.add_argument("--text-column", help='column with the text; "title,abstract" joins two')
    parser.add_argument("--group-column", help="patient or article, never in both splits")
    parser.add_argument("--validation-fraction", type=float, default=0.01, metavar="F")
    parser.add_argument("--seed", type=int, default=0, help="of the split and the order")
    parser.add_argument("--workers", type=int, help="tokenizer threads (default: all cores)")
    parser.add_argument("--license", help="kept in the index (default: the source's own)")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    return parser


def _prepare(arguments: argparse.Namespace) -> None:
    if arguments.workers is not None:
        if arguments.workers < 1:
            raise InputError(f"--workers {arguments.workers}: at least 1 is needed")
        os.environ["RAYON_NUM_THREADS"] = str(arguments.workers)  # read at tokenizers' first use
    output = arguments.output.resolve()
    source = SOURCES.get(arguments.source)
    license = arguments.license
    if license is None:
        license = source.licence if source else ""
    records = read(arguments.input, arguments.source, arguments.text_column, arguments.group_column)
    line = ProgressLine(lambda: records.fraction)
    try:
        report = prepare(
            records,
            load_tokenizer(arguments.tokenizer),
            output,
            source=output.name,
            validation_fraction=arguments.validation_fraction,
            seed=arguments.seed,
            options={
                "source": arguments.source,
                "input": [Path(path).name for path in arguments.input],
                "text_column": arguments.text_column,
                "group_column": arguments.group_column,
            },
            license=license,
            overwrite=arguments.overwrite,
            progress=line,
        )
    finally:
        line.close()
    print(f"{output}: {report['documents']:,} documents, {report['tokens']:,} tokens")
    for split, counts in report["splits"].items():
        print(f"  {split}: {counts['documents']:,} documents, {counts['tokens']:,} tokens")
    grouped = arguments.group_column or (source and source.group != ALONE)
    if grouped and report["documents_without_group"]:
        print(f"  {report['documents_without_group']:,} documents have no group: each its own")
    for reason, count in report["skipped"].items():
        print(f"  left out, {reason}: {count:,}")
    print(f"  files and lines left out: {output / 'report.json'}")


if __name__ == "__main__":
    sys.exit(main())
