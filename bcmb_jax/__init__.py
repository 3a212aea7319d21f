# SPDX-License-Identifier: Apache-2.0
"""BioClinical ModernBERT in JAX: ModernBERT, pretrained on with biomedical and clinical text."""

import os

__version__ = "0.2.0"

# Before anything imports huggingface_hub, which reads it then: nobody is told what is used here.
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
