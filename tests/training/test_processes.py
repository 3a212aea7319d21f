# SPDX-License-Identifier: Apache-2.0
"""Several real processes of one run: rows on every mesh, lost peers, signals."""

import pytest

from tests.fixtures.processes import ROOT, finish, free_port, start


@pytest.mark.parametrize(
    ("processes", "devices", "meshes"),
    [
        (2, 2, 6),
        pytest.param(2, 1, 3, marks=pytest.mark.slow),
        pytest.param(4, 1, 6, marks=pytest.mark.slow),
        pytest.param(4, 2, 10, marks=pytest.mark.slow),
    ],
)
def test_every_mesh_holds_the_rows_of_one_process(processes, devices, meshes):
    script, port = ROOT / "tests" / "fixtures" / "rows_on_meshes.py", free_port()
    ended = finish([start(script, port, processes, i, devices) for i in range(processes)])
    for status, text in ended:
        assert f"{meshes} meshes of {processes * devices} devices, 0 wrong" in text
        assert status == 0
