# SPDX-License-Identifier: Apache-2.0
"""PMC's distribution: which files count, which articles are wanted, and packages of them.

https://pmc.ncbi.nlm.nih.gov/tools/cloud/ has each version of an article as a folder,
`PMC{id}.{version}/PMC{id}.{version}.xml`, with a .json beside it (or in `metadata/`) that gives its
licence and whether it was retracted. Before 2026 there were tar packages: `oa_comm_xml.….tar.gz`,
a baseline and increments, in which what an increment holds again replaces what was before, and
`PMC….tar.gz`, an `.nxml` among pictures.
"""

import json
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path, PurePosixPath

from bcmb_jax.data.ingest.columns import is_yes
from bcmb_jax.data.ingest.files import LONGEST, Reader, Repeats, Stream, list_files, suffix_of
from bcmb_jax.data.ingest.formats import read_jsonl
from bcmb_jax.data.ingest.jats import read_jats
from bcmb_jax.data.ingest.record import SUPERSEDED, Document, Record, Skipped
from bcmb_jax.errors import InputError

NOT_A_FILE = "broken: not a plain file"
BROKEN_DETAILS = "broken: its .json does not say whether it was retracted"
RETRACTED = "retracted"
OTHER_LICENSE = "under another licence"
NO_LICENSE = "licence not known (no license_code in a .json beside it)"

_PACKAGES = (".tar", ".tgz")
_ARTICLES = (".nxml", ".xml")
_LONGEST_NAME = 200
_LONGEST_ABOUT = 2**20
"""Bytes of a header that tells of the next one, such as a long name: it is read as a whole."""
_ABOUT_NEXT = (
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
)
_DATED = re.compile(r"\.(baseline|incr)\.([0-9]{4}-[0-9]{2}-[0-9]{2})\.")
_VERSION = re.compile(r"PMC([0-9]{1,12})\.([1-9][0-9]{0,8})\.n?xml(\.gz)?$", re.IGNORECASE)
_PMCID = re.compile(r"PMC([0-9]{1,12})")
_BLOCK = 1024  # PMCIDs that share an integer of bits


def read_pmc(stream: Stream, file: str, longest: int = LONGEST) -> Iterator[Record]:
    """Return the records of a package, of jsonl, or the one of a single article.

    The keys of jsonl are pmcid, title, abstract and body.
    """
    if suffix_of(file) == ".jsonl":
        return read_jsonl(stream, file, longest).records("title,abstract,body", "pmcid")
    return (read_package if suffix_of(file) in _PACKAGES else read_jats)(stream, file, longest)


def newest_first(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """Return the files, those with a version in their names first; then by the date in them.

    Increments come before a baseline, undated files last.
    """

    def date(file: Path) -> tuple[bool, str, str]:
        found = _DATED.search(file.name)
        kind, day = found.groups() if found else ("", "")
        return _version(file.name) is not None, day, kind

    return sorted(list_files(paths, patterns), key=date, reverse=True)


def pmc_reader(
    files: Sequence[Path],
    _: Callable[..., None] | None = None,
    licenses: Sequence[str] = (),
) -> Reader:
    """Return a reader of these files for the newest versions of articles, less the retracted.

    Args:
      licenses: those of the articles to be kept, all if there is none.
    """
    newest: dict[int, int] = {}  # of the few articles with more versions than the first
    for article, version in filter(None, (_version(file.name) for file in files)):
        if version > 1:
            newest[article] = max(version, newest.get(article, 1))
    wanted = {_plain(license) for license in licenses}

    def read(stream: Stream, file: str, longest: int) -> Iterator[Record]:
        article, version = _version(file) or (0, 1)
        if version < newest.get(article, 1):
            yield Skipped(file, 1, SUPERSEDED)
            return
        reason = _reason_against(_read_details(Path(stream.name)), wanted)
        for record in read_pmc(stream, file, longest):
            unwanted = reason and isinstance(record, Document)
            yield Skipped(file, record.line, reason) if unwanted else record

    return read


def _version(name: str) -> tuple[int, int] | None:
    """Return the numbers of the article and of its version that a file's name gives."""
    found = _VERSION.search(name)
    return (int(found[1]), int(found[2])) if found else None


def _plain(license: object) -> str:
    """Return a licence's code without regard to case and to what is between its words."""
    return " ".join(re.split(r"[\s_-]+", str(license or "").strip())).lower()


def details_of(files: Sequence[Path]) -> list[Path]:
    """Return the .json of each article's file that has one."""
    return [found for file in files if (found := _details_file(file))]


def _details_file(file: Path) -> Path | None:
    name = re.sub(r"\.n?xml(\.gz)?$", "", file.name, flags=re.IGNORECASE) + ".json"
    places = (file.parent / name, file.parent.parent / "metadata" / name)
    return next((place for place in places if place.is_file()), None)


def _read_details(file: Path) -> object:
    """Return what the .json of an article's file says, {} if there is none, None if broken."""
    found = _details_file(file)
    try:
        return json.loads(found.read_bytes()) if found else {}
    except (ValueError, RecursionError):
        return None


def _reason_against(details: object, wanted: set[str]) -> str:
    """Return why an article is left out, or nothing; `wanted` are licences."""
    retracted = is_yes(details.get("is_retracted")) if isinstance(details, dict) else None
    if not isinstance(details, dict) or retracted is None:
        return BROKEN_DETAILS
    if retracted:
        return RETRACTED
    license = _plain(details.get("license_code"))
    if wanted and license not in wanted:
        return OTHER_LICENSE if license else NO_LICENSE
    return ""


def by_article() -> Repeats:
    """Return a function that finds a PMCID again: its first text is the newest (`newest_first`)."""
    seen: dict[int, int] = {}  # a bit for each PMCID: there are millions

    def repeats(document: Document) -> str | None:
        found = _PMCID.fullmatch(document.group or "")
        if not found:
            return None
        block, bit = divmod(int(found[1]), _BLOCK)
        known = seen.get(block, 0)
        seen[block] = known | 1 << bit
        return SUPERSEDED if known & 1 << bit else None

    return repeats


class _Member(tarfile.TarInfo):
    """A header for which only the end mark ends the package: tarfile takes damage for an end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> "_Member":
        found = super().frombuf(buf, encoding, errors)
        if found.type in _ABOUT_NEXT and found.size > _LONGEST_ABOUT:  # read as a whole
            raise tarfile.ReadError(f"{found.size:,} bytes of names")
        return found

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def read_package(stream: Stream, file: str, longest: int = LONGEST) -> Iterator[Record]:
    """Yield the records of every XML file in a package, each named `package.tar.gz!member`.

    Nothing is written to disk, whatever members call themselves.
    """
    done = 0
    try:
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_Member) as tar:
            while (member := tar.next()) is not None:
                # tarfile keeps all members for going back: gigabytes in the end.
                tar.members.clear()  # type: ignore[attr-defined]
                path = PurePosixPath(member.name)
                hidden = any(part[0] == "." and part != ".." for part in path.parts)
                if hidden or path.suffix.lower() not in _ARTICLES:
                    continue
                if _version(path.name):
                    raise InputError(
                        f"input {file} packs versions of articles: unpack it, "
                        "as the newest and the .json beside each have to be found"
                    )
                name = f"{file}!{_printable(member.name)}"
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    yield Skipped(name, 1, NOT_A_FILE)
                else:
                    yield from read_jats(content, name, longest)
                done += 1
    except InputError:
        raise
    except (tarfile.TarError, ValueError) as error:
        raise InputError(
            f"input {file} is a damaged or incomplete tar file (after {done:,} articles): fetch it "
            "again or leave it out"
        ) from error


def _printable(name: str) -> str:
    name = name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
