# SPDX-License-Identifier: Apache-2.0
"""PMC's packages: tar files of many articles, or of one article with its figures.

In https://ftp.ncbi.nlm.nih.gov/pub/pmc/ `oa_bulk/*/xml/*.tar.gz` hold `PMC…xxxxxx/PMC….xml`,
`oa_package/*/*/PMC….tar.gz` an `.nxml` among pictures.
"""

import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from bcmb_jax.data.ingest.jats import read_jats
from bcmb_jax.data.ingest.record import Record, Skipped
from bcmb_jax.errors import InputError

NOT_A_FILE = "broken: not a plain file"

_SUFFIXES = (".nxml", ".xml")
_LONGEST_NAME = 200


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
    """Yields the records of a package, or the one of a single article."""
    packed = PurePosixPath(file.lower().removesuffix(".gz")).suffix in (".tar", ".tgz")
    reader = read_package if packed else read_jats
    return reader(stream, file, text_column, group_column)


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
