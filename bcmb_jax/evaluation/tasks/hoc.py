# SPDX-License-Identifier: Apache-2.0
"""The ten hallmarks of cancer, in the order in which BLUE numbers them.

The order is that of the alphabet: so read, BLUE's sentence labels add up to the document labels of
all 1,580 abstracts.
"""

SOURCE = "github.com/sb895/Hallmarks-of-Cancer; GPL-3.0"
LABELS = (
    "activating invasion and metastasis",
    "avoiding immune destruction",
    "cellular energetics",
    "enabling replicative immortality",
    "evading growth suppressors",
    "genomic instability and mutation",
    "inducing angiogenesis",
    "resisting cell death",
    "sustaining proliferative signaling",
    "tumor promoting inflammation",
)
