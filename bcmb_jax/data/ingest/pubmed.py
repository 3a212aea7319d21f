# SPDX-License-Identifier: Apache-2.0
"""PubMed's baseline and update files: an English article's title and abstract are a document.

The files are `pubmedYYnNNNN.xml.gz` of https://ftp.ncbi.nlm.nih.gov/pubmed/, their elements are
described at https://www.nlm.nih.gov/bsd/licensee/elements_descriptions.html.
"""

import html
import re
from collections.abc import Iterator
from html.entities import html5
from typing import Any
from xml.etree.ElementTree import Element

from bcmb_jax.data.ingest.elements import BrokenXml, read_elements
from bcmb_jax.data.ingest.record import Record, Skipped, make_record
from bcmb_jax.errors import InputError

NOT_ARTICLE = "not a journal article"
NO_PMID = "broken: no PMID"
NOT_ENGLISH = "not English"
NO_ABSTRACT = "no abstract"

# Markup is often escaped once too often, and is then part of the text.
_ESCAPED = re.compile(r"&(?:amp;)*(#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,30});")
_MARKUP = re.compile(r"</?(?:b|i|u|em|strong|sub|sup)\s*/?>", re.IGNORECASE)
_CUT = re.compile(r"\s*\(ABSTRACT TRUNCATED(?: AT \d+ WORDS)?\)$")  # a note of NLM's
_ANNOTATIONS = ("annotation", "annotation-xml")
_NO_LABEL = ("", "UNLABELLED", "UNASSIGNED")
_NO_TITLE = ("[not available].", "[in process citation]")


def read_pubmed(
    stream: Any, file: str, text_column: str | None, group_column: str | None
) -> Iterator[Record]:
    """Yields a record an article, its group the PMID, of every version that the file holds.

    See `pubmed_versions.pubmed_reader` for many files, in which later versions replace earlier.
    """
    for line, element in read_citations(stream, file):
        if element.tag != "DeleteCitation":
            yield make_article(element, file, line)


def read_citations(stream: Any, file: str) -> Iterator[tuple[int, Element]]:
    """Yields (line, element) of articles and of `DeleteCitation`; `InputError` if it is cut short.

    Nothing is skipped after a line that is not XML, as the rest of a file would go unnoticed.
    """
    empty = True
    try:
        for found in read_elements(
            stream, ("PubmedArticle", "PubmedBookArticle", "DeleteCitation")
        ):
            empty = False
            yield found
    except BrokenXml as error:
        raise InputError(
            f"input {file} is {error.reason} at line {error.line:,}: fetch it again or leave it out"
        ) from error
    if empty:
        raise InputError(f"input {file} holds no PubmedArticle: give PubMed's XML files")


def read_pmid(pmid: Element | None) -> tuple[int, int]:
    """PMID and Version; PMID 0 if it is no number. PMIDs have 8 digits at most, says NLM."""
    number = (pmid.text or "").strip() if pmid is not None else ""
    version = pmid.get("Version", "1") if pmid is not None else ""
    if not re.fullmatch(r"[0-9]{1,9}", number):
        return 0, 0
    return int(number), int(version) if re.fullmatch(r"[0-9]{1,4}", version) else 1


def make_article(element: Element, file: str, line: int) -> Record:
    """The record that one article gives."""
    article = element.find("MedlineCitation/Article")
    if article is None:
        return Skipped(file, line, NOT_ARTICLE)
    pmid, _ = read_pmid(element.find("MedlineCitation/PMID"))
    if not pmid:
        return Skipped(file, line, NO_PMID)
    languages = [(language.text or "").strip() for language in article.findall("Language")]
    if languages and "eng" not in languages:
        return Skipped(file, line, NOT_ENGLISH)
    abstract = "\n".join(filter(None, map(_paragraph, article.findall("Abstract/AbstractText"))))
    if not abstract:
        return Skipped(file, line, NO_ABSTRACT)
    title = _title(article.find("ArticleTitle"))
    text = f"{title}\n\n{abstract}" if title else abstract
    return make_record(text, str(pmid), file, line)


def _title(element: Element | None) -> str:
    """NLM puts titles that it translated into brackets, `[Title].`, which are taken off."""
    title = _clean(_text(element)) if element is not None else ""
    if title.lower() in _NO_TITLE:
        return ""
    inner = title.removesuffix(".")
    depth = 0
    for position, character in enumerate(inner, start=1):
        depth += (character == "[") - (character == "]")
        if not depth:  # the bracket that opens the title closes here, if one does
            if position < len(inner) or not inner.startswith("["):
                return title
            return inner[1:-1] + ("" if inner[-2:-1] in ".?!" else ".")
    return title


def _paragraph(element: Element) -> str:
    """A section's text, after its label if the abstract is structured."""
    text = _CUT.sub("", _clean(_text(element)))
    label = _clean(element.get("Label", "")).rstrip(":")
    return f"{label}: {text}" if text and label.upper() not in _NO_LABEL else text


def _text(element: Element) -> str:
    """The text within all markup, less what formulae say a second time."""
    for part in list(element.iter()):
        if part.tag in _ANNOTATIONS:
            part.clear()
    return "".join(element.itertext())


def _clean(text: str) -> str:
    text = _MARKUP.sub("", _ESCAPED.sub(_unescape, text))
    return " ".join(text.split())


def _unescape(match: re.Match[str]) -> str:
    name = match[1]
    # Not `html.unescape` for names, which takes "&notes;" for "¬es;".
    return html.unescape(f"&{name};") if name[0] == "#" else html5.get(f"{name};", match[0])
