# SPDX-License-Identifier: Apache-2.0
"""Programs that one process has compiled are found by the next."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
READS = """
import json, sys
import jax
import numpy as np
import conversion

events = []
jax.monitoring.register_event_listener(lambda event, **_: events.append(event.split("/")[-1]))
model = conversion.from_pretrained(sys.argv[1], "encoder")
texts = ["a" * n for n in np.random.default_rng(0).permutation(1000)[::2]]
assert model.encode(texts).shape == (500, model.config.hidden_size)
print(json.dumps([events.count("cache_misses"), events.count("cache_hits")]))
"""


@pytest.mark.slow
def test_a_second_process_compiles_nothing(folder, tmp_path) -> None:
    environment = os.environ | {"XDG_CACHE_HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)  # of the tests
    counts = []
    for _ in range(2):
        command = [sys.executable, "-c", READS, str(folder)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        counts.append(json.loads(done.stdout))
    (compiled, found), second = counts
    assert 0 < compiled <= 6
    assert found == 0
    assert second == [0, compiled]
