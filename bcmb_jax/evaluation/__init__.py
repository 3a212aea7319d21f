# SPDX-License-Identifier: Apache-2.0
"""Fine-tune and score any model in one way, so that a number means one thing."""
