# SPDX-License-Identifier: Apache-2.0
"""BioClinical ModernBERT in JAX: ModernBERT, pretrained on with biomedical and clinical text."""
