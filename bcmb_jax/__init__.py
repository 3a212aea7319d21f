# SPDX-License-Identifier: Apache-2.0
"""BioClinical ModernBERT in JAX: ModernBERT, pretrained on with biomedical and clinical text."""

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from conversion import from_pretrained as from_pretrained

__version__ = "0.2.0"

# Before anything imports huggingface_hub, which reads it then: nobody is told what is used here.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"


def __getattr__(name: str) -> object:
    """Import `from_pretrained` when it is asked for, since JAX takes seconds to come with it."""
    if name == "from_pretrained":
        from conversion import from_pretrained

        return from_pretrained
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
