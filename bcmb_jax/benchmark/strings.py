# SPDX-License-Identifier: Apache-2.0
"""Time strings to vectors or entities, tokenization included, beside the libraries that users pick.

All sides read one folder, the same strings and, on a CPU, fp32. sentence-transformers sorts them by
length and pads them in batches; the pipelines get one at a time, which pads nothing.
"""

import functools
import importlib.util
import multiprocessing
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any

import conversion
from bcmb_jax.benchmark.report import Result, result
from bcmb_jax.benchmark.timing import OURS, time_interleaved
from bcmb_jax.errors import InputError
from bcmb_jax.inference.rows import Rows
from bcmb_jax.inference.text_model import TextModel

PEERS = {"vectors": ("sentence-transformers", "pipeline"), "entities": ("pipeline",)}
PACKAGES = {"sentence-transformers": "sentence_transformers", "pipeline": "transformers"}
BATCH = 8


def read_texts(path: Path, column: str | None, count: int) -> list[str]:
    """Return the first `count` texts of a table or a folder.

    Raises:
      InputError: there are not so many.
    """
    rows = (row.text for row in Rows(path, column, None) if row.text)
    texts = [*islice(rows, count)]
    if len(texts) < count:
        raise InputError(f"{path} has {len(texts):,} texts; give fewer --documents than {count:,}")
    return texts


def cases(
    model: str,
    texts: Sequence[str],
    *,
    compare: bool,
    peers: Sequence[str],
    rounds: int,
    burst: int,
) -> Iterator[Result]:
    """Yield one result: vectors of any model, or entities where the model is a tagger.

    Args:
      model: a name that `conversion.from_pretrained` knows.
      peers: of those of `PEERS`; empty: all that are installed.
      rounds, burst: as in `time_interleaved`.
    """
    ours = conversion.from_pretrained(model, None)
    what = "entities" if ours.head.kind == "token_classification" else "vectors"
    here = [x for x in PEERS[what] if importlib.util.find_spec(PACKAGES[x])]
    if unknown := [x for x in peers if x not in here]:
        raise InputError(f"no way to run {unknown[0]!r} here; there are {', '.join(here)}")
    names = [OURS, *((peers or here) if compare else ())]
    tokens = sum(map(len, ours.tokenizer.encode_batch(list(texts)))) + 2 * len(texts)
    if compare and not (Path(model) / "config.json").is_file():
        raise InputError(f"{model} is no folder that transformers loads: convert it first")
    sides = {name: _SIDES[name](model, what) for name in names[1:]}
    sides = {OURS: ours.tag if what == "entities" else ours.encode, **sides}
    times = time_interleaved(
        {name: functools.partial(run, list(texts)) for name, run in sides.items()}, rounds, burst
    )
    yield result(
        f"strings to {what}, {len(texts)} texts",
        tokens,
        times,
        precision=ours.precision,
        every_call=times,
        peers=names[1:],
        documents=len(texts),
        peak_bytes={name: _peak(name, model, what, texts) for name in names},
    )


Side = Callable[[list[str]], Any]


def _ours(folder: str, what: str) -> Side:
    model: TextModel = conversion.from_pretrained(folder, None)
    return model.tag if what == "entities" else model.encode


def _sentence_transformers(folder: str, what: str) -> Side:
    from sentence_transformers import SentenceTransformer, models

    words = models.Transformer(folder)
    pooling = models.Pooling(words.get_word_embedding_dimension(), "mean")
    model = SentenceTransformer(modules=[words, pooling], device=None)
    return lambda texts: model.encode(texts, batch_size=BATCH)


def _pipeline(folder: str, what: str) -> Side:
    import torch
    from transformers import pipeline

    if what == "entities":
        kind, first = "token-classification", {"aggregation_strategy": "first"}
        tag = pipeline(kind, folder, trust_remote_code=False, **first)
        return lambda texts: tag(texts, batch_size=1)
    cut = {"truncation": True}
    embed = pipeline("feature-extraction", folder, tokenize_kwargs=cut, trust_remote_code=False)

    def mean(texts: list[str]) -> list[Any]:
        with torch.inference_mode():
            parts = embed(texts, batch_size=1, return_tensors=True)
        return [part[0].mean(0) for part in parts]

    return mean


_SIDES: dict[str, Callable[[str, str], Side]] = {
    OURS: _ours,
    "sentence-transformers": _sentence_transformers,
    "pipeline": _pipeline,
}


def _peak(name: str, folder: str, what: str, texts: Sequence[str]) -> int:
    """Return the most bytes that a process of its own needs for one side."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        return pool.submit(_run_once, name, folder, what, list(texts)).result()


def _run_once(name: str, folder: str, what: str, texts: list[str]) -> int:
    _SIDES[name](folder, what)(texts)
    # Linux begins ru_maxrss of a child with that of its parent.
    (kilobytes,) = re.findall(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)
