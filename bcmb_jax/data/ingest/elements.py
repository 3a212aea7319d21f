# SPDX-License-Identifier: Apache-2.0
"""XML in a stream: the elements that are documents, one at a time, each with its line."""

import re
from codecs import BOM_UTF8
from collections.abc import Collection, Iterator
from html.entities import html5
from typing import Protocol
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from bcmb_jax.data.ingest.record import TOO_LONG

NOT_XML = "broken: not well-formed XML"
NO_ENCODING = "broken: XML in an unknown encoding"
ENTITIES = "broken: XML that declares entities"

TOO_DEEP = "broken: elements nested too deeply"
LEFT_OUT = "left out"
"""Attribute of an element without content, by a name that XML cannot have: why it has none."""

_CHUNK = 1 << 16
_DEEPEST = 100_000


class Readable(Protocol):
    """A binary stream, whether a file or a member of a package."""

    def read(self, size: int = -1, /) -> bytes:
        """Return at most `size` bytes."""


class BrokenXml(Exception):
    """The stream cannot be read beyond a line.

    Attributes:
      rest: what has been read of the stream from that line on.
      begun: how many of the wanted elements have begun.
      around: whether another element is around them.
    """

    def __init__(self, reason: str, line: int, rest: bytes = b""):
        super().__init__(f"{reason}, line {line}")
        self.reason, self.line, self.rest = reason, line, rest
        self.begun, self.around = 0, False


def read_elements(
    stream: Readable, names: Collection[str], longest: int
) -> Iterator[tuple[int, Element]]:
    """Yield (first line, element) for each outermost element of these names when it has ended.

    Several whole documents may follow each other, as `efetch` writes them, and blank lines stand
    before each. At most the elements of one chunk are in memory. One longer than `longest` bytes
    comes without its content, and with the reason as `LEFT_OUT`. Prefixes of namespaces are taken
    off the names. Nothing is fetched; a document type that declares entities is refused, as they
    may expand without end.

    Raises:
      BrokenXml: the rest cannot be read.
    """
    parser, begun = _ElementParser(names, longest), 0
    data = stream.read(_CHUNK)
    while True:
        error = parser.feed(data)
        yield from parser.elements
        parser.elements.clear()
        if error and parser.is_whole:
            begun += parser.begun
            parser, data = _ElementParser(names, longest, error.line - 1), error.rest
        elif error:
            error.begun, error.around = begun + parser.begun, parser.around
            raise error
        elif data:
            data = stream.read(_CHUNK)
        else:
            return


class _ElementParser:
    """Builds no tree outside the wanted elements, so that memory does not grow with the file.

    ElementTree's own parser keeps expat's line numbers to itself.

    Attributes:
      begun: how many of the wanted elements have begun.
      around: whether the outermost element is none of them.
      is_whole: whether the outermost element has ended.
    """

    def __init__(self, names: Collection[str], longest: int, lines_before: int = 0):
        self.elements: list[tuple[int, Element]] = []
        self.begun = 0
        self.around = self.is_whole = False
        self._names, self._longest = names, longest
        self._lines_before = lines_before
        self._depth = self._fed = 0  # elements outside the wanted that are open; bytes
        self._begun_at = 0  # bytes before the wanted element that is open
        self._recent = b""
        self._builder: TreeBuilder | None = None
        self.expat = expat.ParserCreate()
        self.expat.buffer_text = True
        self.expat.EntityDeclHandler = self._refuse_entities
        self.expat.SkippedEntityHandler = self._replace_entity
        self._leave()

    def feed(self, data: bytes) -> BrokenXml | None:
        """Parse some bytes, or (none) the end; return what is wrong with them."""
        if not self._fed and data:  # a declaration may not have blanks before it
            text = data.removeprefix(BOM_UTF8).lstrip()
            self._lines_before += data.count(b"\n", 0, len(data) - len(text))
            data = text
            if not data:
                return None
        self._fed += len(data)
        self._recent = (self._recent + data)[-2 * _CHUNK :]  # a token may have begun before
        try:
            self.expat.Parse(data, not data)
        except expat.ExpatError as error:
            return self._broken(NOT_XML, error.lineno)
        except BrokenXml as error:
            return self._broken(error.reason, error.line)
        except (LookupError, ValueError):  # pyexpat looks encodings up among Python's codecs
            return self._broken(NO_ENCODING, self.expat.CurrentLineNumber)
        if self._fed - self.expat.CurrentByteIndex > self._longest + _CHUNK:  # a tag or a comment
            return self._broken(TOO_LONG, self.expat.CurrentLineNumber)
        if self._builder and self._fed - self._begun_at > self._longest:
            self._builder = None
            self.expat.CharacterDataHandler = None
        return None

    def _broken(self, reason: str, line: int) -> BrokenXml:
        start = max(0, self.expat.ErrorByteIndex - self._fed + len(self._recent))
        return BrokenXml(reason, self._lines_before + line, self._recent[start:])

    def _leave(self) -> None:
        self._builder = None
        self.is_whole = self._depth == 0 and self.begun > 0
        self.expat.StartElementHandler = self._start
        self.expat.CharacterDataHandler = None
        self.expat.EndElementHandler = self._end

    def _end(self, _: str) -> None:
        self._depth -= 1
        self.is_whole = self._depth == 0

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        if _without_prefix(tag) not in self._names:
            self.around = True
            self._depth += 1
            if self._depth > _DEEPEST:
                self._refuse_depth()
            return
        self.begun += 1
        line = self._lines_before + self.expat.CurrentLineNumber
        self._begun_at = self.expat.CurrentByteIndex
        builder = self._builder = TreeBuilder()
        root, depth = builder.start(tag, attributes), 1

        def start(tag: str, attributes: dict[str, str]) -> None:
            nonlocal depth
            depth += 1
            if depth > _DEEPEST:
                self._refuse_depth()
            if self._builder:
                builder.start(tag, attributes)

        def end(tag: str) -> None:
            nonlocal depth, root
            depth -= 1
            if self._builder:
                builder.end(tag)
            if depth:
                return
            if not self._builder:
                root = Element(root.tag, {LEFT_OUT: TOO_LONG})
            for element in root.iter():
                element.tag = _without_prefix(element.tag)
            self.elements.append((line, root))
            self._leave()

        self.expat.StartElementHandler = start
        self.expat.CharacterDataHandler = builder.data
        self.expat.EndElementHandler = end

    def _refuse_depth(self) -> None:
        raise BrokenXml(TOO_DEEP, self.expat.CurrentLineNumber)

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


RAISED, LOWERED, LEVEL = "\2", "\3", "\4"
"""Stand in a text before and after what is above or below the line: XML has no such characters."""

SCRIPTS = {"sup": RAISED, "sub": LOWERED}

# Two and a half, with the half raised and lowered.
_FRACTION = re.compile(rf"(?<=[0-9]){RAISED}(?=[0-9]+{LEVEL}[/⁄]{LOWERED}[0-9])")
_POWER = re.compile(rf"(?<=[0-9]){LEVEL}?{RAISED}\s*(?=[0-9]|[+−–-]\s?\w)")
_INDEX = re.compile(rf"(?<=[0-9]){LEVEL}?{LOWERED}\s*(?=[0-9])")
_AFTER = re.compile(rf"(?<=[0-9]){LEVEL}+(?=[0-9])")
_SCRIPT = re.compile(f"[{RAISED}{LOWERED}{LEVEL}]")


def mark_script(element: Element, mark: str) -> None:
    """Put marks around the text of an element that stands above or below the line."""
    element.text = f"{mark}{element.text or ''}"
    element.tail = f"{LEVEL}{element.tail or ''}"


def spell_scripts(text: str) -> str:
    """Return a text without marks of raised and lowered text, in which numbers stay themselves.

    A power of a number is written 10^9, and no digit joins one beside it; all else stands on the
    line (CO2, m-2, 2nd).
    """
    text = _POWER.sub("^", _FRACTION.sub(" ", text))
    return _SCRIPT.sub("", _AFTER.sub(" ", _INDEX.sub("_", text)))
