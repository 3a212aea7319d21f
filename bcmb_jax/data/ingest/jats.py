# SPDX-License-Identifier: Apache-2.0
"""JATS and NLM's older DTDs, the XML of PMC: an English article's text is a document.

The files are those of https://pmc.ncbi.nlm.nih.gov/tools/openftlist/, one article each or packed
(see `jats_package`); their elements are described at https://jats.nlm.nih.gov/archiving/.
"""

import re
from collections.abc import Iterator
from typing import Any
from xml.etree.ElementTree import Element

from bcmb_jax.data.ingest.elements import BrokenXml, read_elements
from bcmb_jax.data.ingest.record import Record, Skipped, make_record

NO_ARTICLE = "broken: no article element"
TOO_DEEP = "broken: elements nested too deeply"
NOT_ENGLISH = "not English"
NO_BODY = "no body text"

# Breaks between paragraphs, and marks left out: no character of XML, so that none is the text's.
_BREAK = "\0"
_MARK = "\1"
# With marks goes what print has between and around them.
_SOME = r"\x01(?:[\s,;–-]*\x01)*"
_MARKS = re.compile(rf"\[{_SOME}\]|\({_SOME}\)|{_SOME}")

_BLOCKS = {"abstract", "attrib", "boxed-text", "def", "def-item", "disp-quote", "list"}
_BLOCKS |= {"list-item", "p", "sec", "speech", "statement", "term", "title", "verse-line"}
_DROPPED = {"ack", "app", "array", "chem-struct", "chem-struct-wrap", "code", "disp-formula"}
_DROPPED |= {"disp-formula-group", "fig", "fig-group", "fn", "fn-group", "glyph-data", "graphic"}
_DROPPED |= {"inline-formula", "inline-graphic", "inline-supplementary-material", "label", "math"}
_DROPPED |= {"media", "object-id", "preformat", "ref-list", "supplementary-material", "table"}
_DROPPED |= {"table-wrap", "table-wrap-group", "tex-math"}
# References to what is left out.
_NOTES = {"aff", "author-notes", "corresp", "fn", "table-fn"}
_TEASERS = {"graphical", "key-points", "short", "teaser", "toc", "web-summary"}


def read_jats(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields a record an article, its group the PMCID, else the PMID, else the file.

    Title, abstract and body, each after a blank line, a paragraph or title of a section a line.
    Left out are tables, figures, formulae, lists of references, notes, and marks that print raises
    above the line; citations on the line, `[1]`, stay, as without them sentences fall apart.
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
    """The paragraphs below an element, white space collapsed."""
    if element is None:
        return []
    text = _MARKS.sub("", _text(element))
    return [line for part in text.split(_BREAK) if (line := " ".join(part.split()))]


def _text(element: Element, raised: bool = False) -> str:
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
