# SPDX-License-Identifier: Apache-2.0
"""Between this package and the rest of the world: checkpoints of other frameworks, both ways."""

from conversion.pretrained import PretrainedModel, from_pretrained, load_initial, save_pretrained

__all__ = ["PretrainedModel", "from_pretrained", "load_initial", "save_pretrained"]
