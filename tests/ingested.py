# SPDX-License-Identifier: Apache-2.0
"""What readers make of a file, for the tests of each."""

from pathlib import Path
from typing import Any

from bcmb_jax.data.ingest import Document, read


def records(tmp_path: Path, content: bytes, format: str, *columns: str) -> list[Any]:
    """Records of one file, each as (text, line) or (reason, line)."""
    file = tmp_path / f"input.{format}"
    file.write_bytes(content)
    return [
        (record.text if isinstance(record, Document) else record.reason, record.line)
        for record in read([file], format, *columns)
    ]
