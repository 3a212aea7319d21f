# SPDX-License-Identifier: Apache-2.0
"""Turn text into token shards.

    bcmb prepare --source csv --input notes.csv --tokenizer MODEL --output DIR

Writes DIR/train, DIR/validation, DIR/tokenizer and DIR/report.json. Many sources at once:
`--source all --input mimic-iii=DIR pubmed=DIR …` writes DIR/mimic-iii, DIR/pubmed, … and, run
again, only those that are missing.
"""

import argparse
from pathlib import Path

from bcmb_jax import hub, private
from bcmb_jax.commands.options import Parser
from bcmb_jax.data.clean import DATE_SHIFTS, PLACEHOLDERS
from bcmb_jax.data.ingest.files import BOUNDS, LONGEST


def parse(arguments: list[str]) -> argparse.Namespace:
    """Read the arguments, and check that they are complete."""
    parser = Parser("bcmb prepare", description=__doc__)
    parser.add_argument("--list-sources", action="store_true", help="print the sources and stop")
    parser.add_argument("--source", help="what the input is; see --list-sources; or all")
    parser.add_argument(
        "--input", nargs="+", metavar="PATH", help="files, or folders of them; of all: NAME=PATH"
    )
    parser.add_argument("--tokenizer", help="folder, hub:OWNER/NAME or a start by name")
    parser.add_argument(
        "--tokenizer-reviewed",
        action="store_true",
        help="somebody has looked for names in its vocabulary; said in reports and model cards",
    )
    hub.add_options(parser)
    parser.add_argument("--output", type=Path, help="folder to write; its name names the source")
    private.add_option(parser)
    parser.add_argument("--text-column", help='column with the text; "title,abstract" joins two')
    parser.add_argument("--group-column", help="patient or article, never in both splits")
    parser.add_argument("--skip-column", help="marks errors, which are left out; none: no column")
    parser.add_argument("--licenses", help='keep articles under these, by their .json: "CC BY,CC0"')
    parser.add_argument("--delimiter", metavar="C", help="of csv and tsv, or tab (default: seen)")
    parser.add_argument("--encoding", help="of all files, as cp1252 (default: seen)")
    parser.add_argument(
        "--all-parts", action="store_true", help="a folder of train and test parts is one corpus"
    )
    parser.add_argument(
        "--peek",
        action="store_true",
        help="print columns, rows, lengths and empty shares, but no value, and stop",
    )
    parser.add_argument(
        "--max-record-bytes",
        type=int,
        default=LONGEST,
        metavar="N",
        help="leave out and count longer records (characters, of text; default: %(default)s)",
    )
    parser.add_argument(
        "--max-expansion",
        type=int,
        default=BOUNDS.expansion,
        metavar="N",
        help="refuse a gzip file that unpacks to more than N times its size (default: %(default)s)",
    )
    parser.add_argument("--validation-fraction", type=float, default=0.01, metavar="F")
    parser.add_argument("--seed", type=int, default=0, help="of split and order")
    parser.add_argument(
        "--secret-file",
        metavar="FILE",
        help="of split, surrogates and fingerprints where records may be of persons, so that no "
        "identifier can be searched for in them (default: ~/.config/bcmb_jax/secret, made at first "
        "use); none: --seed alone decides",
    )
    parser.add_argument("--workers", type=int, help="tokenizer threads (default: all cores)")
    parser.add_argument(
        "--license",
        metavar="TEXT",
        help='licence or data use agreement, or "none needed" (default: the source\'s own)',
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--canaries",
        type=int,
        default=0,
        metavar="N",
        help="plant N made-up sentences in training documents, so that bcmb memorization "
        "can measure what a model keeps of them; the model's card says so (20 are enough)",
    )
    parser.add_argument(
        "--canary-repeats", type=int, default=1, metavar="N", help="documents each stands in"
    )
    clean = parser.add_argument_group("cleaning", "off unless asked for; report.json counts it")
    clean.add_argument("--unwrap-lines", action="store_true", help="join hard-wrapped paragraphs")
    clean.add_argument(
        "--placeholders",
        choices=PLACEHOLDERS,
        default="keep",
        help="MIMIC's [**...**] and ___: as they are (default), or realistic surrogates; these "
        "replace placeholders and do not de-identify text",
    )
    clean.add_argument(
        "--date-shift",
        choices=DATE_SHIFTS,
        default=DATE_SHIFTS[0],
        help="of surrogates: a patient's dates all move by one time, which keeps the day of the "
        "week (default) or the season",
    )
    clean.add_argument(
        "--min-characters",
        type=int,
        default=0,
        metavar="N",
        help="leave out texts with fewer, white space not counted",
    )
    clean.add_argument("--exact-duplicates", action="store_true", help="leave out repeated texts")
    clean.add_argument(
        "--near-duplicates",
        nargs="?",
        type=float,
        const=0.8,
        metavar="J",
        help="also leave out texts this similar to an earlier one (Jaccard, 0.8 if not given); "
        "needs bcmb-jax[dedup]",
    )
    clean.add_argument(
        "--not-in",
        nargs="+",
        default=[],
        metavar="FOLDER",
        help="earlier outputs, made with one of the two above, whose texts count as earlier ones, "
        "as those of the sources before it do with --source all",
    )
    options = parser.parse_args(arguments)
    if options.list_sources:
        return options
    needed = ("source", "input") if options.peek else ("source", "input", "tokenizer", "output")
    if missing := [f"--{name}" for name in needed if not getattr(options, name)]:
        parser.error(f"missing {', '.join(missing)}")
    for name in ("max_record_bytes", "max_expansion", "canary_repeats"):
        if getattr(options, name) < 1:
            parser.error(f"--{name.replace('_', '-')} begins at 1")
    if options.canaries < 0:
        parser.error("--canaries begins at 0")
    if options.workers is not None and options.workers < 1:
        parser.error(f"--workers {options.workers}: at least 1 is needed")
    return options
