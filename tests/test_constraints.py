# SPDX-License-Identifier: Apache-2.0
"""Locks: the versions of the constraints, each file of them by its hash, and nothing missing."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "constraints"
NAMES = ("py311-jax0.10", "py312-jax0.12")
LINTERS = {"ast-serialize", "librt", "mypy", "mypy-extensions", "pathspec", "ruff"}
"""Packages of the extra [dev] alone: they are in the constraints, and on nobody's other machine."""


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def versions(file: Path) -> dict[str, str]:
    """Package → version, of a file of constraints or a lock."""
    found = re.findall(r"^([\w.-]+)==([^\s;\\]+)", file.read_text(encoding="utf-8"), re.MULTILINE)
    return {canonical(name): version for name, version in found}


@pytest.mark.parametrize("name", NAMES)
def test_lock_and_constraints_name_the_same_versions(name) -> None:
    wanted, locked = versions(FOLDER / f"{name}.txt"), versions(FOLDER / f"{name}.lock")
    assert locked == {n: version for n, version in wanted.items() if n not in LINTERS}


@pytest.mark.parametrize("name", NAMES)
def test_the_lock_has_every_dependency_and_not_the_project(name) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["test"], *extras["dedup"]]
    needed = {canonical(re.match(r"[\w.-]+", line)[0]) for line in wanted} - {"bcmb-jax"}
    assert needed <= versions(FOLDER / f"{name}.lock").keys()
    assert "bcmb-jax" not in versions(FOLDER / f"{name}.lock")


def test_every_lock_agrees_with_the_constraints_of_each_python() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    torch = re.search(r"^TORCH = torch==(\S+)$", makefile, re.MULTILINE)[1]
    locks = sorted(FOLDER.glob("*.lock"))
    assert len(locks) == 5
    for file in locks:
        found = versions(file)
        assert found.get("torch", torch).removesuffix("+cpu") == torch, file.name
        for name in NAMES if file.stem not in NAMES else ():
            pinned = versions(FOLDER / f"{name}.txt")
            assert found == found | {n: pinned[n] for n in found.keys() & pinned}, file.name


def test_every_package_of_a_lock_has_hashes() -> None:
    for file in FOLDER.glob("*.lock"):
        lines = file.read_text(encoding="utf-8").replace("\\\n", "").splitlines()
        entries = [line for line in lines if line and not line.lstrip().startswith("#")]
        bare = [x for x in entries if not re.search(r"--hash=sha256:[0-9a-f]{64}(\s|$)", x)]
        assert entries, file.name
        assert not bare, f"{file.name}: {bare[0]}"


def test_every_program_of_make_integrations_is_pinned_and_has_a_check() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8").replace("\\\n", " ")
    names = re.search(r"^ONLY \?= (.+)$", makefile, re.MULTILINE)[1].split()
    torch = re.search(r"^TORCH = (\S+)$", makefile, re.MULTILINE)[1]
    lists = {file.stem: file for file in (FOLDER / "integrations").glob("*.txt")}
    assert lists.keys() == {*names, "exports"}
    for file in lists.values():
        lines = file.read_text(encoding="utf-8").splitlines()
        free = [x for x in lines if not re.match(r"# |-[ce] |[\w.-]+==[\w.]+$", x)]
        assert not free, f"{file.name}: {free[0]} is not pinned"
        assert {x for x in lines if x.startswith("torch==")} <= {torch}, file.name
    for name in names:
        check = "check_" + re.sub(r"-[\d.]+$", "", name).replace("-", "_") + ".py"
        assert (ROOT / "tests/integrations" / check).is_file(), check
