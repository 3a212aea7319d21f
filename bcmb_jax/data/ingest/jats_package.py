# SPDX-License-Identifier: Apache-2.0
"""PMC's packages: tar files of many articles, or of one article with its figures.

In https://ftp.ncbi.nlm.nih.gov/pub/pmc/ `oa_bulk/*/xml/*.tar.gz` hold `PMC…xxxxxx/PMC….xml`,
`oa_package/*/*/PMC….tar.gz` an `.nxml` among pictures. Bulk packages are a baseline and daily
increments; what an increment holds again replaces what was before.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from bcmb_jax.data.ingest.files import Repeats, is_jsonl, list_files
from bcmb_jax.data.ingest.jats import read_jats
from bcmb_jax.data.ingest.jsonl import read_jsonl
from bcmb_jax.data.ingest.record import SUPERSEDED, Document, Record, Skipped
from bcmb_jax.errors import InputError

NOT_A_FILE = "broken: not a plain file"

_SUFFIXES = (".nxml", ".xml")
_LONGEST_NAME = 200
_DATED = re.compile(r"\.(baseline|incr)\.([0-9]{4}-[0-9]{2}-[0-9]{2})\.")
_PMCID = re.compile(r"PMC([0-9]{1,12})")
_BLOCK = 1024


class _Member(tarfile.TarInfo):
    """Only the mark of the end is an end: tarfile takes damage, and a cut, for one."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def read_pmc(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields the records of a package, of jsonl, or the one of a single article.

    The keys of jsonl are pmcid, title, abstract and body.
    """
    if is_jsonl(file):
        return read_jsonl(stream, file, "title,abstract,body", "pmcid")
    packed = PurePosixPath(file.lower().removesuffix(".gz")).suffix in (".tar", ".tgz")
    reader = read_package if packed else read_jats
    return reader(stream, file, text_column, group_column)


def newest_first(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """The files by the date in their names, increments before a baseline; then those without."""

    def date(file: Path) -> tuple[str, str]:
        found = _DATED.search(file.name)
        return (found[2], found[1]) if found else ("", "")

    return sorted(list_files(paths, patterns), key=date, reverse=True)


def by_article() -> Repeats:
    """A PMCID counts only where it comes first, which is its newest text (see `newest_first`)."""
    seen: dict[int, int] = {}  # a bit for each: there are millions

    def repeats(document: Document) -> str | None:
        found = _PMCID.fullmatch(document.group or "")
        if not found:
            return None
        block, place = divmod(int(found[1]), _BLOCK)
        known = seen.get(block, 0)
        seen[block] = known | 1 << place
        return SUPERSEDED if known & 1 << place else None

    return repeats


def read_package(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields the records of every XML file in it, each named `package.tar.gz!member`.

    Nothing is written to disk, whatever members call themselves.
    """
    done = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
            while (member := tar.next()) is not None:
                # Kept for going back, they would be gigabytes in the end.
                tar.members.clear()  # type: ignore[attr-defined]
                path = PurePosixPath(member.name)
                hidden = any(part[0] == "." and part != ".." for part in path.parts)
                if hidden or path.suffix.lower() not in _SUFFIXES:
                    continue
                name = f"{file}!{_printable(member.name)}"
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    yield Skipped(name, 1, NOT_A_FILE)
                else:
                    yield from read_jats(content, name, text_column, group_column)
                done += 1
    except tarfile.TarError as error:
        raise InputError(
            f"input {file} is a damaged or incomplete tar file (after {done:,} articles): fetch it "
            "again or leave it out"
        ) from error


def _printable(name: str) -> str:
    name = name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
