# SPDX-License-Identifier: Apache-2.0
"""BioClinical ModernBERT in JAX: continued pretraining of ModernBERT on biomedical and clinical text."""
