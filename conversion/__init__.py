# SPDX-License-Identifier: Apache-2.0
"""Convert checkpoints of other frameworks to ours and back, and load models from them."""

from conversion.pretrained import PretrainedModel, from_pretrained, load_initial, save_pretrained

__all__ = ["PretrainedModel", "from_pretrained", "load_initial", "save_pretrained"]
