# SPDX-License-Identifier: Apache-2.0
"""Text to token shards: split by group, tokenize, shuffle, write; all of a source or nothing.

`OUTPUT/train` and `OUTPUT/validation` are token shards (see `shards`), `OUTPUT/tokenizer` is what
they were made with. `OUTPUT/report.json` has the counts, and the lines of the records that were
left out, by the number of their file: names of files may be patients' names, and stand in
`OUTPUT/input_files.json` alone.
"""

import errno
import shutil
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bcmb_jax.data.canaries import CANARIES, NO_CANARIES, Planting
from bcmb_jax.data.clean import Cleaner, Cleaning
from bcmb_jax.data.clean.duplicates import FINGERPRINTS
from bcmb_jax.data.ingest.record import Document, Record, Skipped, TokenDocument
from bcmb_jax.data.report import NAMES, Kept, LeftOut
from bcmb_jax.data.secret import keyed_hash
from bcmb_jax.data.shard_writer import ShardWriter
from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.data.vocabulary import review
from bcmb_jax.errors import InputError, record_error
from bcmb_jax.files import clear_leftovers, new_directory, write_json

NO_TOKENS = "empty: no tokens"
NOT_WRAPPED = "broken: tokens that do not go from the tokenizer's [CLS] to its [SEP]"
WRITTEN = {"train", "validation", "tokenizer", "report.json", NAMES, FINGERPRINTS, CANARIES}
SPECIAL_INSIDE = "broken: special tokens between [CLS] and [SEP]"

_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)
_BATCH_DOCUMENTS = 1000
_BATCH_CHARACTERS = 4_000_000  # a batch of full-text articles should not take gigabytes
_AT_ONCE = 2

_Batch = list[Document | TokenDocument]

Progress = Callable[..., None]
"""Called after every batch as `progress(stage, documents, tokens)`, with `fraction` (0 to 1, how
much of the stage is done) where the input's bytes do not tell."""


def prepare(
    records: Iterable[Record],
    tokenizer: Tokenizer,
    output: str | Path,
    *,
    source: str,
    validation_fraction: float = 0.01,
    seed: int = 0,
    secret: bytes = b"",
    cleaning: Cleaning | None = None,
    canaries: Planting = NO_CANARIES,
    options: dict[str, Any] | None = None,
    inputs: Sequence[str] = (),
    license: str = "",
    overwrite: bool = False,
    progress: Progress = lambda *_, **__: None,
) -> dict[str, Any]:
    """Write the folder `output` and return its report; the same input gives the same bytes.

    A group is in validation or in train by its hash alone, with seed and secret; a record without a
    group is its own.
    Where none falls into validation, the group whose size comes nearest to the fraction is moved
    there; only a fraction of 0 goes without. After an error, what was there before is still there,
    and nothing else.

    Args:
      secret: keeps ids of groups from being searched for by their split, and the input's order
        from being seen; empty: the seed alone decides. `cleaning` has its own.
      canaries: how many made-up sentences to plant in training documents, and how often.
      options: only written down.
      inputs: names of what is read, which stand only beside those of files with lines left out.
      progress: called after every batch.
      overwrite: replace an existing output, at the very end.

    Raises:
      InputError: `output` exists, there is nothing to train on, or the disk is full.
    """
    if not 0 <= validation_fraction < 1:
        raise InputError(f"validation fraction {validation_fraction} is not in [0, 1)")
    if seed < 0:
        raise InputError(f"seed {seed}: at least 0 is needed")
    output = Path(output).resolve()
    clear_leftovers(output)
    _check_replaceable(output, overwrite)
    cleaning = cleaning or Cleaning()
    cleaner = Cleaner(cleaning)
    options = {
        **(options or {}),
        **cleaning.options(),
        "validation_fraction": validation_fraction,
        "canaries": canaries.options(),
    }
    records = cleaner.apply(records)
    writers: dict[str, ShardWriter] = {}
    try:
        with new_directory(output) as building:
            _check_replaceable(output, overwrite)  # again: now nobody else can write it
            tokenizer.save(building / "tokenizer")
            with ExitStack() as stack:
                splits = ["train", "validation"] if validation_fraction else ["train"]
                for split in splits:
                    writers[split] = stack.enter_context(ShardWriter(building / split, tokenizer))
                groups = _Groups(validation_fraction, seed, secret)
                draws = keyed_hash(secret, "canaries", f"{source}:{seed}")
                plant = partial(canaries.plant, building, tokenizer, draws)
                left_out = LeftOut()
                report = _spool(records, tokenizer, writers, groups, left_out, plant, progress)
                _check_not_empty(report, validation_fraction)
                for split, writer in writers.items():
                    writer.finish(
                        source=source,
                        split=split,
                        seed=seed,
                        secret=secret,
                        options=options,
                        license=license,
                        skipped=report["skipped"],
                        progress=partial(progress, f"writing {split}"),
                    )
            cleaner.save(building)
            report = {
                "source": source,
                **report,
                "cleaned": dict(sorted(cleaner.counts.items())),
                "tokenizer": review(tokenizer)._asdict(),
                "options": {**options, "seed": seed},
            }
            write_json(building / "report.json", report, indent=1)
            names = {number: name for name, number in left_out.files.items()}
            write_json(building / NAMES, {"inputs": [*inputs], "left_out": names}, indent=1)
    except OSError as error:
        if error.errno in _DISK_FULL:
            raise _disk_full(output, sum(w.tokens for w in writers.values())) from error
        raise
    return report


def _disk_full(output: Path, tokens: int) -> InputError:
    free = shutil.disk_usage(next(p for p in output.parents if p.exists())).free / 1e6
    return InputError(
        f"disk full: the {free:,.1f} MB free in {output.parent} are too little for {output.name} "
        f"(there were {tokens:,} tokens when it ended; each takes 2 bytes, or 4 of a vocabulary "
        "above 65,536, and as much again while they are shuffled): free some or choose another "
        "--output; what was there before is unchanged"
    )


def _check_replaceable(output: Path, overwrite: bool) -> None:
    if not output.exists():
        return
    if not overwrite:
        raise InputError(f"output {output} exists already: choose another, or add --overwrite")
    if not (output / "report.json").is_file():
        raise InputError(f"output {output} was not written by bcmb prepare: remove it yourself")
    if foreign := sorted({path.name for path in output.iterdir()} - WRITTEN):
        raise InputError(
            f"output {output} holds more than bcmb prepare writes ({foreign[0]}): move that "
            "away first"
        )


def _spool(
    records: Iterable[Record],
    tokenizer: Tokenizer,
    writers: dict[str, ShardWriter],
    groups: "_Groups",
    left_out: LeftOut,
    plant: Callable[[ShardWriter], None],
    progress: Progress,
) -> dict[str, Any]:
    """Tokenize every document into its split's writer and return the counts."""
    skip = left_out.add
    without_group, moved = 0, 0
    kept = Kept()
    records = (_unwrap(r, tokenizer) if isinstance(r, TokenDocument) else r for r in records)
    for batch, encoded in _encode_ahead(_batches(records, skip), tokenizer):
        for document, ids in zip(batch, encoded, strict=True):
            if len(ids) == 0:
                skip(Skipped(document.file, document.line, NO_TOKENS))
                continue
            without_group += int(document.group is None)
            kept.add(document)
            split, group = groups.split(document)
            if split == "train" and not len(writers.get("validation", ())):
                groups.remember(group, len(writers["train"]))
            writers[split].add(ids)
        counts = [(len(writer), writer.tokens) for writer in writers.values()]
        progress("tokenizing", sum(d for d, _ in counts), sum(t for _, t in counts))
    documents = sum(len(writer) for writer in writers.values())
    if documents and "validation" in writers and not len(writers["validation"]):
        chosen = groups.nearest()
        for ids in writers["train"].take(chosen):
            writers["validation"].add(ids)
        moved = len(chosen)
    plant(writers["train"])
    tokens = sum(writer.tokens for writer in writers.values())
    return {
        "documents": documents,
        "tokens": tokens,
        "tokens_with_special": tokens + 2 * documents,
        "unknown_tokens": sum(writer.unknown_tokens for writer in writers.values()),
        "documents_without_group": without_group,
        "moved_to_validation": moved,
        "kept": kept.counts(),
        "splits": {s: {"documents": len(w), "tokens": w.tokens} for s, w in writers.items()},
        "skipped": dict(sorted(left_out.counts.items())),
        "skipped_lines": dict(sorted(left_out.lines.items())),
        "skipped_lines_at_most": LeftOut.LISTED,  # of a reason
    }


def _unwrap(document: TokenDocument, tokenizer: Tokenizer) -> TokenDocument | Skipped:
    """Return the document without `[CLS]` and `[SEP]`, which the loader adds."""
    ids, special = document.ids, tokenizer.special
    for extreme in (ids.min(initial=0), ids.max(initial=0)):
        if not 0 <= extreme < tokenizer.vocab_size:
            what = (
                f"the sample has a token id beyond the tokenizer's {tokenizer.vocab_size:,}: give "
                "the one it was made with"
            )
            raise record_error(document.file, document.line, what)
    if len(ids) < 2 or ids[0] != special.cls or ids[-1] != special.sep:
        return Skipped(document.file, document.line, NOT_WRAPPED)
    inner = ids[1:-1]
    # Fidelity: upstream trains on a "[SEP]" or "[MASK]" that a text spells out as on its own, and
    # on texts joined by them; here special ids in a row are only ever our own (see Tokenizer).
    if any((inner == i).any() for i in (special.cls, special.sep, special.pad, special.mask)):
        return Skipped(document.file, document.line, SPECIAL_INSIDE)
    return replace(document, ids=inner)


def _batches(records: Iterable[Record], skip: Callable[[Skipped], None]) -> Iterator[_Batch]:
    batch: _Batch = []
    characters = 0
    for record in records:
        if isinstance(record, Skipped):
            skip(record)
            continue
        batch.append(record)
        characters += len(record.text if isinstance(record, Document) else record.ids)
        if len(batch) == _BATCH_DOCUMENTS or characters >= _BATCH_CHARACTERS:
            yield batch
            batch, characters = [], 0
    if batch:
        yield batch


def _encode_ahead(
    batches: Iterable[_Batch], tokenizer: Tokenizer
) -> Iterator[tuple[_Batch, list[np.ndarray]]]:
    """Tokenize batches (without the interpreter lock) while the next are read and the last kept.

    Two at once, so that every core has work while the ids of one become an array.
    """
    pending: deque[tuple[_Batch, Future[list[np.ndarray]]]] = deque()
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        for batch in batches:
            pending.append((batch, pool.submit(_encode, batch, tokenizer)))
            if len(pending) > _AT_ONCE:
                first, encoded = pending.popleft()
                yield first, encoded.result()
        for first, encoded in pending:
            yield first, encoded.result()


def _encode(batch: _Batch, tokenizer: Tokenizer) -> list[np.ndarray]:
    texts = [document.text for document in batch if isinstance(document, Document)]
    encoded = iter(tokenizer.encode_batch(texts))
    return [d.ids if isinstance(d, TokenDocument) else next(encoded) for d in batch]


class _Groups:
    """The split of every group, and the documents of groups in train while validation is empty."""

    def __init__(self, fraction: float, seed: int, secret: bytes):
        self._fraction, self._seed, self._secret = fraction, seed, secret
        self._documents: dict[str, array[int]] = {}

    def split(self, document: Document | TokenDocument) -> tuple[str, str]:
        """Return the split of a document's group, and the group's hash."""
        group = document.group if document.group is not None else f"{document.file}:{document.line}"
        digest = keyed_hash(self._secret, "split", f"{self._seed}:{group}").hex()
        in_validation = int(digest[:8], 16) / 2**32 < self._fraction
        if in_validation:
            self._documents.clear()
        return ("validation" if in_validation else "train"), digest

    def remember(self, group: str, document: int) -> None:
        """Note the number of a group's document in train."""
        if self._fraction:
            self._documents.setdefault(group, array("q")).append(document)

    def nearest(self) -> Sequence[int]:
        """Return the documents of the group that comes nearest to the fraction of all.

        Raises:
          InputError: there is only one group.
        """
        total = sum(map(len, self._documents.values()))
        if len(self._documents) < 2:
            raise InputError(
                f"validation would be empty: all of {total:,} documents are one group; add "
                "--validation-fraction 0 to go without a validation split"
            )
        wanted = self._fraction * total
        groups = sorted(self._documents.items(), key=lambda x: (abs(len(x[1]) - wanted), x[0]))
        return groups[0][1]


def _check_not_empty(report: dict[str, Any], fraction: float) -> None:
    documents = report["documents"]
    if not documents:
        left_out = ", ".join(f"{n:,} {reason}" for reason, n in report["skipped"].items())
        raise InputError(f"the input holds no document (left out: {left_out or 'nothing'})")
    if not report["splits"]["train"]["documents"]:
        raise InputError(
            f"train would be empty: all of {documents:,} documents fell into validation at a "
            f"fraction of {fraction}; choose a smaller --validation-fraction or another --seed"
        )
