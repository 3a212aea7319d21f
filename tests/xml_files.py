# SPDX-License-Identifier: Apache-2.0
"""XML as a test writes it, and the records that come of it."""

import io
from collections.abc import Mapping
from pathlib import Path

from bcmb_jax.data.ingest.files import Reader, Records
from bcmb_jax.data.ingest.record import Document, Record

DOCTYPE = '<!DOCTYPE PubmedArticleSet SYSTEM "https://dtd.nlm.nih.gov/pubmed_190101.dtd">\n'
BOMB = """<!DOCTYPE bomb [
<!ENTITY a "zebrafish">
<!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
"""
SECRET = "zebrafish"
KEPT = "kept"


def write(folder: Path, contents: Mapping[str, str | bytes]) -> list[Path]:
    """The files, in the order given."""
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return [folder / name for name in contents]


def records(files: list[Path], reader: Reader) -> list[Record]:
    return list(Records(files, reader, None, None))


def of(content: str, reader: Reader) -> list[tuple[str, int]]:
    """(text or reason, line) of one stream's records."""
    found = reader(io.BytesIO(content.encode()), "a.xml", None, None)
    return [(r.text if isinstance(r, Document) else r.reason, r.line) for r in found]
