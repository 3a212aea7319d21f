# SPDX-License-Identifier: Apache-2.0
"""JATS and NLM's older DTDs: the text of an English article is a document.

The elements are described at https://jats.nlm.nih.gov/archiving/. Files hold one article (PMC's) or
many (Europe PMC's).
"""

import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element

from bcmb_jax.data.ingest.elements import (
    LEFT_OUT,
    LEVEL,
    SCRIPTS,
    TOO_DEEP,
    BrokenXml,
    Readable,
    read_elements,
    spell_scripts,
)
from bcmb_jax.data.ingest.files import LONGEST
from bcmb_jax.data.ingest.record import NOT_ENGLISH, Record, Skipped, make_record
from bcmb_jax.errors import record_error

NO_ARTICLE = "broken: no article element"
NO_BODY = "no body text"

_ARTICLE = re.compile(rb"<([\w.-]+:)?article[\s/>]")

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
_MONOLINGUAL = _BLOCKS | {"article-title"}
# Kinds of references to what is left out, and of abstracts that repeat another.
_NOTES = {"aff", "author-notes", "corresp", "fn", "table-fn"}
_TEASERS = {"graphical", "key-points", "short", "teaser", "toc", "web-summary"}


def read_jats(stream: Readable, file: str, longest: int = LONGEST) -> Iterator[Record]:
    """Yield a record an article, its group the PMCID, else the PMID, else the file.

    The text is title, abstract and body, separated by blank lines, with a line for each paragraph
    and title of a section. Left out are tables, figures, formulae, lists of references, notes, and
    marks that print raises above the line; citations on the line, `[1]`, stay, as without them
    sentences fall apart.
    """
    empty = True
    try:
        for line, article in read_elements(stream, ("article",), longest):
            empty = False
            try:
                yield _record(article, file, line)
            except RecursionError:
                yield Skipped(file, line, TOO_DEEP)
        if empty:
            yield Skipped(file, 1, NO_ARTICLE)
    except BrokenXml as error:
        if error.around or error.begun + _count_articles(error.rest, stream) > 1:
            what = (
                f"{error.reason}, and other articles of the file would be lost: fetch it again, "
                "mend that line or leave the file out"
            )
            raise record_error(file, error.line, what) from error
        yield Skipped(file, error.line, error.reason)


def _count_articles(rest: bytes, stream: Readable) -> int:
    """Return how many articles begin in the rest of a stream; in UTF-16, every other byte is 0."""
    count = 0
    while more := stream.read(1 << 16):
        whole, bracket, begun = (rest + more).replace(b"\0", b"").rpartition(b"<")
        count += len(_ARTICLE.findall(whole))
        rest = bracket + begun
    return count + len(_ARTICLE.findall(rest.replace(b"\0", b"")))


def _record(article: Element, file: str, line: int) -> Record:
    if reason := article.get(LEFT_OUT):
        return Skipped(file, line, reason)
    element = article.find("body")
    if not _is_english(article) or not _is_english(element):
        return Skipped(file, line, NOT_ENGLISH)
    body = _lines(element)
    if not body:
        return Skipped(file, line, NO_BODY)
    front = article.find("front/article-meta")
    parts = [body]
    group = file
    if front is not None:
        abstracts = front.findall("abstract")
        kept = [a for a in abstracts if a.get("abstract-type") not in _TEASERS]
        if not any(map(_is_english, kept)):
            kept += [a for a in front.findall("trans-abstract") if _language(a, "")[:2] == "en"]
        title = _lines(front.find("title-group/article-title"))
        parts = [[" ".join(title)], *map(_lines, kept), body]
        group = _group(front) or file
    text = "\n\n".join("\n".join(lines) for lines in parts if any(lines))
    return make_record(text, group, file, line)


def _language(element: Element, default: str = "en") -> str:
    said = next((v for k, v in element.attrib.items() if k.endswith("lang")), "")
    return (said or default).lower()  # said to be of no language: as if nothing were said


def _is_english(element: Element | None) -> bool:
    """Return whether an element does not say that it is in another language."""
    return element is None or _language(element).startswith("en")


def _group(front: Element) -> str | None:
    ids = {e.get("pub-id-type"): (e.text or "").strip() for e in front.findall("article-id")}
    if pmcid := ids.get("pmcid") or ids.get("pmc"):
        return f"PMC{pmcid.upper().removeprefix('PMC')}"
    return ids.get("pmid") or None


def _lines(element: Element | None) -> list[str]:
    """Return the paragraphs below an element, white space collapsed."""
    if element is None:
        return []
    text = _MARKS.sub("", spell_scripts(_text(element)))
    return [line for part in text.split(_BREAK) if (line := " ".join(part.split()))]


def _text(element: Element, raised: bool = False) -> str:
    """Return the running text with `_BREAK` and `_MARK` in it; `raised` is text above the line."""
    name = element.tag
    if name in _DROPPED or (name in _MONOLINGUAL and not _is_english(element)):
        return ""  # foreign words within a paragraph stay, such as names of species
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
    if name in SCRIPTS:
        text = f"{SCRIPTS[name]}{text}{LEVEL}"
    return f"{_BREAK}{text}{_BREAK}" if name in _BLOCKS else text


def _xref(element: Element, raised: bool) -> str:
    text = "".join(element.itertext())
    kind = element.get("ref-type")
    if kind in _NOTES:
        return _MARK
    if kind == "bibr" and (raised or element.find("sup") is not None or not text.strip()):
        return _MARK
    return text
