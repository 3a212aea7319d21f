# SPDX-License-Identifier: Apache-2.0
"""The command lines: each module's `main` reads its arguments and calls the library."""
