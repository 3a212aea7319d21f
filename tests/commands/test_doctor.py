# SPDX-License-Identifier: Apache-2.0
"""`bcmb doctor` finds what is wrong with an installation, and says how to mend it."""

from pathlib import Path

import pytest

from bcmb_jax.commands import checks, doctor
from bcmb_jax.commands.options import doctor as options


def install(folder: Path, name: str, version: str, *requires: str) -> None:
    """Write the metadata of an installed package."""
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True)
    lines = [f"Name: {name}", f"Version: {version}", *(f"Requires-Dist: {x}" for x in requires)]
    (info / "METADATA").write_text("Metadata-Version: 2.1\n" + "\n".join(lines) + "\n")


@pytest.fixture
def smi(tmp_path, monkeypatch):
    """Put a program `nvidia-smi` on PATH that prints a line."""

    def put(line: str) -> None:
        program = tmp_path / "bin/nvidia-smi"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho '{line}'\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", str(program.parent))

    return put


@pytest.mark.parametrize(
    ("driver", "plugin", "state", "words"),
    [
        ("580.65.06", "", "wrong", 'no CUDA plugin, so it is not used; pip install "bcmb-jax[cu'),
        ("535.10", "", "wrong", 'pip install "bcmb-jax[cuda12]"'),
        ("535.10", "13", "wrong", "too old for the CUDA 13 plugin; update the driver to 580"),
        ("470.10", "12", "wrong", "too old for JAX; update the driver to 525"),
        ("535.10", "12", "ok", "1 × NVIDIA H100"),
    ],
)
def test_a_gpu_needs_a_plugin_and_a_driver_that_fit(
    tmp_path, smi, driver, plugin, state, words
) -> None:
    smi(f"NVIDIA H100, {driver}")
    if plugin:
        install(tmp_path / "site", f"jax-cuda{plugin}-plugin", "0.10.2")
    found = checks.gpu(tmp_path / "proc", [str(tmp_path / "site")])
    assert found.state == state
    assert words in str(found)


def test_a_gpu_is_found_without_nvidia_smi(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert checks.gpu(tmp_path, []).state == "ok"  # there is none
    card = tmp_path / "driver/nvidia/gpus/0000:01:00.0/information"
    card.parent.mkdir(parents=True)
    card.write_text("Model: \t\t NVIDIA A100\nIRQ: 1\n")
    version = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.129.03  Thu Oct 19\n"
    (tmp_path / "driver/nvidia/version").write_text(version)
    found = checks.gpu(tmp_path, [])
    assert (found.state, found.text[:35]) == ("wrong", "1 × NVIDIA A100, driver 535.129.03,")


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ({"jax": "0.10.2", "jaxlib": "0.10.2"}, "ok"),
        ({"jax": "0.10.2", "jaxlib": "0.9.0"}, "wrong"),
        ({"jax": "0.10.2"}, "wrong"),
        ({"jax": "0.10.2", "jaxlib": "0.10.2", "jax-cuda12-plugin": "0.9.0"}, "wrong"),
    ],
)
def test_versions_must_fit(tmp_path, names, state) -> None:
    for name, version in names.items():
        requires = ["jaxlib<=0.10.2,>=0.10.2"] if name == "jax" else []
        install(tmp_path, name, version, *requires)
    found = checks.versions([str(tmp_path)])
    assert found.state == state
    assert ("pip install" in found.fix) == (state == "wrong")


def test_a_missing_torch_extra_is_a_note(tmp_path) -> None:
    found = checks.torch_extra([str(tmp_path)])
    assert (found.state, 'pip install "bcmb-jax[torch]"' in found.fix) == ("note", True)
    install(tmp_path, "torch", "2.9.0")
    assert checks.torch_extra([str(tmp_path)]).state == "ok"


def test_memory_is_that_of_the_container(tmp_path) -> None:
    group = tmp_path / "sys/fs/cgroup"
    for folder in (group, tmp_path / "proc"):
        folder.mkdir(parents=True)
    (tmp_path / "proc/meminfo").write_text("MemTotal: 9 kB\nMemAvailable:   9000000 kB\n")
    assert checks.memory(tmp_path).state == "ok"
    (group / "memory.max").write_text("max\n")
    assert checks.memory(tmp_path).state == "ok"
    (group / "memory.max").write_text("5000000000\n")
    (group / "memory.current").write_text("4500000000\n")
    (group / "memory.stat").write_text("anon 1\ninactive_file 4000000000\n")
    assert checks.memory(tmp_path).state == "ok"  # cached files make way
    (group / "memory.stat").write_text("anon 1\ninactive_file 1000000000\n")
    found = checks.memory(tmp_path)
    assert (found.state, found.text) == ("wrong", "1.5 GB free (limit of this container 5.0 GB)")
    (tmp_path / "proc/meminfo").write_text("MemAvailable:   1000000 kB\n")
    assert checks.memory(tmp_path).text.startswith("1.0 GB free")


def test_the_cache_must_be_writable_and_private(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "new"))
    assert checks.program_cache().state == "ok"
    (tmp_path / "new/bcmb_jax").chmod(0o777)
    assert "open to others (0777)" in checks.program_cache().text
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))  # root, too, writes nothing there
    found = checks.program_cache()
    assert (found.state, "set XDG_CACHE_HOME" in found.fix) == ("wrong", True)


@pytest.mark.slow
def test_the_command_ends_with_what_is_wrong(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(checks, "SPEED_SECONDS", 0.1)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "bcmb_jax").mkdir()
    (tmp_path / "bcmb_jax").chmod(0o755)
    assert doctor.main(options.parse(["--workdir", str(tmp_path / "later/run")])) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines[:-1]] == [
        *("versions", "torch", "memory", "disk", "GPU", "device", "cache", "numerics")
    ]
    assert lines[-3].startswith("wrong  cache")
    assert lines[-2].startswith("ok     numerics  loss 6.")
    assert "tokens/s" in lines[-2]
    assert lines[-1].endswith(" wrong")


def test_attention_that_differs_from_its_reference_is_found(monkeypatch) -> None:
    monkeypatch.setitem(checks.TOLERANCE, "float32", 0.0)
    found = checks.self_test()
    assert found.state == "wrong"
    assert "from its reference" in found.text
