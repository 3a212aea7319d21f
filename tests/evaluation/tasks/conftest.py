# SPDX-License-Identifier: Apache-2.0
"""Files of a few rows, which the readers take here however rarely a label is used."""

import pytest

from bcmb_jax.evaluation.tasks import labels


@pytest.fixture(autouse=True)
def rare_labels(monkeypatch) -> None:
    """Tests of the bound itself, in test_labels.py, put it back."""
    monkeypatch.setattr(labels, "FEWEST_USES", 0)
