# SPDX-License-Identifier: Apache-2.0
"""The compilation cache stays off while programs for absent devices are compiled."""

import jax
import pytest


@pytest.fixture(autouse=True)
def never_from_the_cache():
    """Programs for devices that are not there can be kept, but not read again."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    yield
    jax.config.update("jax_enable_compilation_cache", before)
