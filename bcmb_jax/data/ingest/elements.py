# SPDX-License-Identifier: Apache-2.0
"""XML in a stream: the elements that are documents, one at a time, each with its line."""

from collections.abc import Collection, Iterator
from html.entities import html5
from typing import Protocol
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

NOT_XML = "broken: not well-formed XML"
NO_ENCODING = "broken: XML in an unknown encoding"
ENTITIES = "broken: XML that declares entities"

_CHUNK = 1 << 16


class Readable(Protocol):
    """A binary stream, whether a file or a member of a package."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes."""


class BrokenXml(Exception):
    """The stream cannot be read beyond a line."""

    def __init__(self, reason: str, line: int):
        super().__init__(f"{reason}, line {line}")
        self.reason = reason
        self.line = line


def read_elements(stream: Readable, names: Collection[str]) -> Iterator[tuple[int, Element]]:
    """Yield (first line, element) for each outermost element of these names when it has ended.

    At most the elements of one chunk are in memory. Prefixes of namespaces are taken off the names.
    Nothing is fetched; a document type that declares entities is refused, as they may expand
    without end.

    Raises:
      BrokenXml: the rest cannot be read.
    """
    parser = _ElementParser(names)
    chunk = b"?"
    while chunk:
        chunk = stream.read(_CHUNK)
        error = None
        try:
            parser.expat.Parse(chunk, not chunk)
        except expat.ExpatError as cause:
            error = BrokenXml(NOT_XML, cause.lineno)
        except (LookupError, ValueError):  # pyexpat looks encodings up among Python's codecs
            error = BrokenXml(NO_ENCODING, parser.expat.CurrentLineNumber)
        yield from parser.elements
        parser.elements.clear()
        if error:
            raise error


class _ElementParser:
    """Builds no tree outside the wanted elements, so that memory does not grow with the file.

    ElementTree's own parser keeps expat's line numbers to itself.
    """

    def __init__(self, names: Collection[str]):
        self.elements: list[tuple[int, Element]] = []
        self._names = names
        self._builder: TreeBuilder | None = None
        self.expat = expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.EntityDeclHandler = self._refuse_entities
        self.expat.SkippedEntityHandler = self._replace_entity
        self.expat.StartElementHandler = self._start

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if _without_prefix(tag) not in self._names:
            return
        line = self.expat.CurrentLineNumber
        builder = self._builder = TreeBuilder()
        root = builder.start(tag, attributes)

        def end(tag: str) -> None:
            if builder.end(tag) is root:
                for element in root.iter():
                    element.tag = _without_prefix(element.tag)
                self.elements.append((line, root))
                self._builder = None
                self.expat.StartElementHandler = self._start
                self.expat.CharacterDataHandler = self.expat.EndElementHandler = None

        self.expat.StartElementHandler = builder.start
        self.expat.CharacterDataHandler = builder.data
        self.expat.EndElementHandler = end

    def _refuse_entities(self, *_: object) -> None:
        raise BrokenXml(ENTITIES, self.expat.CurrentLineNumber)

    def _replace_entity(self, name: str, is_parameter: bool) -> None:
        """Replace an entity of an external document type (JATS's, say) if HTML has it too."""
        if is_parameter:
            return
        if f"{name};" not in html5:
            raise BrokenXml(NOT_XML, self.expat.CurrentLineNumber)
        if self._builder:
            self._builder.data(html5[f"{name};"])


def _without_prefix(tag: str) -> str:
    return tag.rpartition(":")[2]
