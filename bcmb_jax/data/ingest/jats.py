# SPDX-License-Identifier: Apache-2.0
"""PMC's articles in JATS and NLM's older DTDs: an English article's text is a document.

https://pmc.ncbi.nlm.nih.gov/tools/openftlist/ has the files, one article each or tar packages: in
https://ftp.ncbi.nlm.nih.gov/pub/pmc/ `oa_bulk/*/xml/*.tar.gz` hold `PMC…xxxxxx/PMC….xml`, and
`oa_package/*/*/PMC….tar.gz` an `.nxml` among pictures. Bulk packages are a baseline and daily
increments; what an increment holds again replaces what was before. The elements are described at
https://jats.nlm.nih.gov/archiving/.
"""

import re
import tarfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from xml.etree.ElementTree import Element

from bcmb_jax.data.ingest.elements import BrokenXml, Readable, read_elements
from bcmb_jax.data.ingest.files import Repeats, Stream, list_files, suffix_of
from bcmb_jax.data.ingest.formats import read_jsonl
from bcmb_jax.data.ingest.record import (
    NOT_ENGLISH,
    SUPERSEDED,
    Document,
    Record,
    Skipped,
    make_record,
)
from bcmb_jax.errors import InputError

NO_ARTICLE = "broken: no article element"
TOO_DEEP = "broken: elements nested too deeply"
NO_BODY = "no body text"
NOT_A_FILE = "broken: not a plain file"

_PACKAGES = (".tar", ".tgz")
_ARTICLES = (".nxml", ".xml")
_LONGEST_NAME = 200
_DATED = re.compile(r"\.(baseline|incr)\.([0-9]{4}-[0-9]{2}-[0-9]{2})\.")
_PMCID = re.compile(r"PMC([0-9]{1,12})")
_BLOCK = 1024  # PMCIDs that share an integer of bits

# Stand for breaks between paragraphs and for marks left out: XML has no such characters.
_BREAK = "\0"
_MARK = "\1"
# With marks go the separators between and the brackets around them.
_SOME = r"\x01(?:[\s,;–-]*\x01)*"
_MARKS = re.compile(rf"\[{_SOME}\]|\({_SOME}\)|{_SOME}")

_BLOCKS = {
    *("abstract", "attrib", "boxed-text", "def", "def-item", "disp-quote", "list", "list-item"),
    *("p", "sec", "speech", "statement", "term", "title", "verse-line"),
}
_DROPPED = {
    *("ack", "app", "array", "chem-struct", "chem-struct-wrap", "code", "disp-formula"),
    *("disp-formula-group", "fig", "fig-group", "fn", "fn-group", "glyph-data", "graphic"),
    *("inline-formula", "inline-graphic", "inline-supplementary-material", "label", "math"),
    *("media", "object-id", "preformat", "ref-list", "supplementary-material", "table"),
    *("table-wrap", "table-wrap-group", "tex-math"),
}
# Kinds of references to what is left out, and of abstracts that repeat another.
_NOTES = {"aff", "author-notes", "corresp", "fn", "table-fn"}
_TEASERS = {"graphical", "key-points", "short", "teaser", "toc", "web-summary"}


def read_pmc(stream: Stream, file: str) -> Iterator[Record]:
    """Return the records of a package, of jsonl, or the one of a single article.

    The keys of jsonl are pmcid, title, abstract and body.
    """
    if suffix_of(file) == ".jsonl":
        return read_jsonl(stream, file).records("title,abstract,body", "pmcid")
    return (read_package if suffix_of(file) in _PACKAGES else read_jats)(stream, file)


def newest_first(paths: Sequence[str | Path], patterns: Sequence[str]) -> list[Path]:
    """Return the files by the date in their names, increments before a baseline, undated last."""

    def date(file: Path) -> tuple[str, str]:
        found = _DATED.search(file.name)
        return (found[2], found[1]) if found else ("", "")

    return sorted(list_files(paths, patterns), key=date, reverse=True)


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


def read_jats(stream: Readable, file: str) -> Iterator[Record]:
    """Yield a record an article, its group the PMCID, else the PMID, else the file.

    The text is title, abstract and body, separated by blank lines, with a line for each paragraph
    and title of a section. Left out are tables, figures, formulae, lists of references, notes, and
    marks that print raises above the line; citations on the line, `[1]`, stay, as without them
    sentences fall apart.
    """
    empty = True
    try:
        for line, article in read_elements(stream, ("article",)):
            empty = False
            try:
                yield _record(article, file, line)
            except RecursionError:
                yield Skipped(file, line, TOO_DEEP)
        if empty:
            yield Skipped(file, 1, NO_ARTICLE)
    except BrokenXml as error:
        yield Skipped(file, error.line, error.reason)


def _record(article: Element, file: str, line: int) -> Record:
    language = next((v for k, v in article.attrib.items() if k.endswith("lang")), "en")
    if not language.lower().startswith("en"):
        return Skipped(file, line, NOT_ENGLISH)
    body = _lines(article.find("body"))
    if not body:
        return Skipped(file, line, NO_BODY)
    front = article.find("front/article-meta")
    parts = [body]
    group = file
    if front is not None:
        abstracts = front.findall("abstract")
        kept = [a for a in abstracts if a.get("abstract-type") not in _TEASERS]
        title = _lines(front.find("title-group/article-title"))
        parts = [[" ".join(title)], *map(_lines, kept), body]
        group = _group(front) or file
    text = "\n\n".join("\n".join(lines) for lines in parts if any(lines))
    return make_record(text, group, file, line)


def _group(front: Element) -> str | None:
    ids = {e.get("pub-id-type"): (e.text or "").strip() for e in front.findall("article-id")}
    if pmcid := ids.get("pmcid") or ids.get("pmc"):
        return f"PMC{pmcid.upper().removeprefix('PMC')}"
    return ids.get("pmid") or None


def _lines(element: Element | None) -> list[str]:
    """Return the paragraphs below an element, white space collapsed."""
    if element is None:
        return []
    text = _MARKS.sub("", _text(element))
    return [line for part in text.split(_BREAK) if (line := " ".join(part.split()))]


def _text(element: Element, raised: bool = False) -> str:
    """Return the running text with `_BREAK` and `_MARK` in it; `raised` is text above the line."""
    name = element.tag
    if name in _DROPPED:
        return ""
    if name == "xref":
        return _xref(element, raised)
    if name == "break":
        return " "
    raised = raised or name == "sup"
    title = ""
    pieces = [element.text or ""]
    for child in element:
        text = _text(child, raised)
        if name == "sec" and child.tag == "title":
            title = text
        else:
            pieces.append(text)
        pieces.append(child.tail or "")
    text = "".join(pieces)
    if name == "sec" and not text.replace(_BREAK, "").strip():
        return ""  # a title over what has been left out
    if name == "def-item":  # a term and what it stands for are one line
        text = text.replace(_BREAK, " ")
    text = title + text
    return f"{_BREAK}{text}{_BREAK}" if name in _BLOCKS else text


def _xref(element: Element, raised: bool) -> str:
    text = "".join(element.itertext())
    kind = element.get("ref-type")
    if kind in _NOTES:
        return _MARK
    if kind == "bibr" and (raised or element.find("sup") is not None or not text.strip()):
        return _MARK
    return text


class _Member(tarfile.TarInfo):
    """A header for which only the end mark ends the package: tarfile takes damage for an end."""

    @classmethod
    def fromtarfile(cls, tar: tarfile.TarFile) -> "_Member":
        try:
            return super().fromtarfile(tar)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from error


def read_package(stream: Stream, file: str) -> Iterator[Record]:
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
                name = f"{file}!{_printable(member.name)}"
                content = tar.extractfile(member) if member.isfile() else None
                if content is None:
                    yield Skipped(name, 1, NOT_A_FILE)
                else:
                    yield from read_jats(content, name)
                done += 1
    except tarfile.TarError as error:
        raise InputError(
            f"input {file} is a damaged or incomplete tar file (after {done:,} articles): fetch it "
            "again or leave it out"
        ) from error


def _printable(name: str) -> str:
    name = name if len(name) <= _LONGEST_NAME else f"…{name[-_LONGEST_NAME:]}"
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in name)
