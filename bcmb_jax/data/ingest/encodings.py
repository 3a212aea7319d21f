# SPDX-License-Identifier: Apache-2.0
"""Encodings of tables: recognised from a file's beginning, or named by whoever has the file."""

import codecs
import re
from io import BufferedIOBase, BufferedReader, RawIOBase

from bcmb_jax.errors import InputError

_MARKS = {b"\xef\xbb\xbf": "utf-8-sig", b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16"}
_TELLING = 2**19  # bytes from the first on that are not UTF-8, which tell what else it is
_DAMAGED = re.compile("[\udc80-\udcff]")
_BEYOND_ASCII = re.compile("[^\0-\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_SYLLABLE = re.compile(rb"[\xb0-\xc8][\xa1-\xfe]")  # of Hangul, but for rare ones
# Bytes of cp1252: letters beside a letter of ASCII, or words of their own; signs that notes use;
# signs that stand in the middle of a word only where the bytes are letters of another encoding.
_ACCENTED = rb"[\xc0-\xd6\xd8-\xf6\xf8-\xff\x8a\x8c\x8e\x9a\x9c\x9e\x9f]"
_LETTERS = re.compile(
    rb"(?<=[A-Za-z])%b|%b(?=[A-Za-z])" % ((_ACCENTED,) * 2)
    + rb"|(?<=[ (\t\n])[\xc0-\xfd](?=[ .,;)\t\r\n-])"
)
_SIGNS = re.compile(rb"[\x80\x85\x91-\x97\x99\xa0\xa7\xab\xae\xb0-\xb7\xb9-\xbe\xd7]")
_SIGN_IN_WORD = re.compile(
    rb"(?<=[A-Za-z])[\x80-\x84\x86-\x90\xa1-\xac\xae-\xb3\xb5-\xbf](?=[A-Za-z])"
)


def recognise_encoding(sample: bytes, file: str) -> str:
    """Return the encoding of a file that begins with these bytes; UTF-8 where nothing else speaks.

    Single damaged bytes do not make another encoding: their records are left out, and counted.

    Raises:
      InputError: a good part of the lines is not UTF-8, and nothing tells what it is.
    """
    for mark, name in _MARKS.items():
        if sample.startswith(mark):
            return name
    zeros = [sample[side::2].count(0) / max(1, len(sample) // 2) for side in (0, 1)]
    if max(zeros) > max(0.1, 4 * min(zeros)):  # characters of ASCII have one byte that is zero
        return "utf-16-be" if zeros[0] > zeros[1] else "utf-16-le"
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError as error:
        line = sample.rfind(b"\n", 0, error.start) + 1
        part = sample[line : line + _TELLING]
    else:
        return "utf-8-sig"
    text = part.decode("utf-8", "surrogateescape")
    damaged = len(_DAMAGED.findall(text))
    if 2 * damaged <= len(_BEYOND_ASCII.findall(text)) - damaged:
        return "utf-8-sig"
    if _is_korean(part):
        return "cp949"
    high = len(_HIGH.findall(part))
    known = len(_LETTERS.findall(part)) + len(_SIGNS.findall(part))
    if known >= 0.8 * high and len(_SIGN_IN_WORD.findall(part)) <= 0.1 * high:
        return "cp1252"
    lines = sample.decode("utf-8", "surrogateescape").split("\n")
    broken = sum(bool(_DAMAGED.search(line)) for line in lines)
    if broken > 0.2 * len(lines):
        raise InputError(
            f"{file} is not UTF-8 (in {broken:,} of the first {len(lines):,} lines), and its "
            "encoding cannot be told: name it with --encoding, as cp1250, cp1251, cp850, gb18030 "
            "or shift_jis"
        )
    return "utf-8-sig"


def _is_korean(sample: bytes) -> bool:
    """Return whether all is ASCII and Hangul: Chinese read as cp949 is half Chinese characters."""
    beyond = _BEYOND_ASCII.findall(sample.decode("cp949", "ignore"))
    syllables = sum("\uac00" <= character <= "\ud7a3" for character in beyond)
    usual = 2 * len(_SYLLABLE.findall(sample)) >= 0.8 * len(_HIGH.findall(sample))
    return len(beyond) > 0 and usual and syllables >= 0.9 * len(beyond)


def check_encoding(name: str) -> str:
    """Return the name of an encoding, as an option gives it.

    Raises:
      InputError: Python knows no text encoding of this name.
    """
    try:
        "".encode(name)
    except LookupError as error:
        raise InputError(
            f"--encoding {name}: Python knows no encoding of this name; cp1252 and cp949 are two"
        ) from error
    return name


class _Recoded(RawIOBase):
    """The bytes of a stream as UTF-8 with its mark; it can be read again from its beginning."""

    def __init__(self, stream: BufferedIOBase, encoding: str):
        self.name = getattr(stream, "name", "")  # what lies beside a file is found by it
        self._stream, self._rest, self._begun = stream, codecs.BOM_UTF8, False
        self._decoder = codecs.getincrementaldecoder(encoding)("surrogateescape")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        if offset or whence:
            raise OSError("a recoded stream can only be read again from its beginning")
        self._decoder.reset()
        self._rest, self._begun = codecs.BOM_UTF8, False
        return int(self._stream.seek(0))

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        while not self._rest and (block := self._stream.read(1 << 16)):
            text = self._decoder.decode(block)
            text, self._begun = text if self._begun else text.removeprefix("\ufeff"), True
            self._rest = text.encode("utf-8", "surrogateescape")
        count = min(len(buffer), len(self._rest))
        buffer[:count], self._rest = self._rest[:count], self._rest[count:]
        return count


def recode(stream: BufferedIOBase, encoding: str) -> BufferedReader:
    """Return a stream of the same text in UTF-8; undecodable bytes stay as they are."""
    return BufferedReader(_Recoded(stream, encoding))
