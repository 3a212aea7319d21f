# SPDX-License-Identifier: Apache-2.0
"""XML in a stream: the elements that are documents, one at a time, each with its line."""

from collections.abc import Collection, Iterator
from html.entities import html5
from typing import Any
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

NOT_XML = "broken: not well-formed XML"
NO_ENCODING = "broken: XML in an unknown encoding"
ENTITIES = "broken: XML that declares entities"

_CHUNK = 1 << 16


class BrokenXml(Exception):
    """The stream cannot be read beyond a line."""

    def __init__(self, reason: str, line: int):
        super().__init__(f"{reason}, line {line}")
        self.reason = reason
        self.line = line


def read_elements(stream: Any, names: Collection[str]) -> Iterator[tuple[int, Element]]:
    """Yields (first line, element) for each outermost element of these names when it has ended.

    No more than a chunk's are in memory. Prefixes of namespaces are taken off the names. Nothing is
    fetched; a document type that declares entities is refused, as they may expand without end.
    Raises `BrokenXml`.
    """
    found = _Found(names)
    chunk = b"?"
    while chunk:
        chunk = stream.read(_CHUNK)
        error = None
        try:
            found.parser.Parse(chunk, not chunk)
        except expat.ExpatError as cause:
            error = BrokenXml(NOT_XML, cause.lineno)
        except (LookupError, ValueError):  # pyexpat looks encodings up among Python's codecs
            error = BrokenXml(NO_ENCODING, found.parser.CurrentLineNumber)
        yield from found.elements
        found.elements.clear()
        if error:
            raise error


class _Found:
    """Builds no tree outside the wanted elements, so that memory does not grow with the file.

    ElementTree's own parser keeps expat's line numbers to itself.
    """

    def __init__(self, names: Collection[str]):
        self.elements: list[tuple[int, Element]] = []
        self._names = names
        self._builder: TreeBuilder | None = None
        self.parser = expat.ParserCreate()
        self.parser.buffer_text = True
        self.parser.EntityDeclHandler = self._declare
        self.parser.SkippedEntityHandler = self._skip
        self._leave()

    def _leave(self) -> None:
        self._builder = None
        self.parser.StartElementHandler = self._start
        self.parser.CharacterDataHandler = None
        self.parser.EndElementHandler = None

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if _plain(tag) not in self._names:
            return
        line = self.parser.CurrentLineNumber
        builder = self._builder = TreeBuilder()
        root = builder.start(tag, attributes)

        def end(tag: str) -> None:
            if builder.end(tag) is root:
                for element in root.iter():
                    element.tag = _plain(element.tag)
                self.elements.append((line, root))
                self._leave()

        self.parser.StartElementHandler = builder.start
        self.parser.CharacterDataHandler = builder.data
        self.parser.EndElementHandler = end

    def _declare(self, *_: Any) -> None:
        raise BrokenXml(ENTITIES, self.parser.CurrentLineNumber)

    def _skip(self, name: str, is_parameter: bool) -> None:
        """Of the entities of an external document type, JATS's say, those of HTML are known."""
        if is_parameter:
            return
        if f"{name};" not in html5:
            raise BrokenXml(NOT_XML, self.parser.CurrentLineNumber)
        if self._builder:
            self._builder.data(html5[f"{name};"])


def _plain(tag: str) -> str:
    return tag.rpartition(":")[2]
