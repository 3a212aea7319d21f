# SPDX-License-Identifier: Apache-2.0
"""Speed of this package and of its peers, measured in the same run."""
