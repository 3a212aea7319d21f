# SPDX-License-Identifier: Apache-2.0
"""The network, by system calls: which addresses the commands connect or send to."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
STRACE = ("strace", "-f", "-qq", "-e", "trace=connect,sendto,sendmsg", "-o")
ADDRESS = re.compile(r'(?:inet_addr\(|inet_pton\(AF_INET6, )"([^"]+)"')
HERE = {"127.0.0.1", "::1"}
# Without these nothing but the package itself keeps its libraries from the network.
SWITCHES = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("strace"), reason="needs strace"),
]


def traced(command: str, folder: Path, **variables: str) -> tuple[set[str], int, str]:
    """Run a command under strace: addresses other than this machine's, exit status, stderr."""
    log = folder / "calls"
    kept = {name: x for name, x in os.environ.items() if name not in SWITCHES}
    done = subprocess.run(
        [*STRACE, log, sys.executable, *command.format(folder).split()],
        cwd=ROOT,
        env=kept | {"HF_HOME": str(folder / "home")} | variables,
        capture_output=True,
        text=True,
    )
    return set(ADDRESS.findall(log.read_text())) - HERE, done.returncode, done.stderr


SHORT = (
    "--config.max_tokens=40_000 --config.schedule.warmup_tokens=10_000 "
    "--config.schedule.decay_tokens=20_000 --config.eval_tokens=2_000"
)


def test_the_demo_connects_to_nothing(tmp_path) -> None:
    for command in (
        "scripts/train.py --config=configs/tiny.py --workdir={0}/run " + SHORT,
        "-m conversion.convert --input {0}/run --to huggingface --output {0}/model",
        "scripts/fill_mask.py --model {0}/model",
    ):
        addresses, status, errors = traced(command, tmp_path)
        assert (addresses, status) == (set(), 0), errors


@pytest.mark.parametrize(
    "command",
    [
        "scripts/train.py --config=configs/tiny.py --workdir={0}/run --config.init_from=runs/nots",
        "scripts/train.py --config=configs/tiny.py --workdir={0}/run --config.tokenizer=runs/nots",
        "scripts/prepare_data.py --source=csv --input={0}/train.csv --tokenizer=runs/nots "
        "--output={0}/shards",
        "-m conversion.convert --input=runs/nots --to=orbax --output={0}/out",
        "scripts/fill_mask.py --model=runs/nots",
        "scripts/evaluate.py --task=csv --data={0} --model=runs/nots --output={0}/out",
        "scripts/evaluate.py --task=mlm --data={0} --model={0} --tokenizer=runs/nots "
        "--output={0}/out",
        "scripts/benchmark.py fine-tuning --task=csv --data={0} --tokenizer=runs/nots",
    ],
)
def test_a_mistyped_path_connects_to_nothing(command, tmp_path) -> None:
    for split in ("train", "validation", "test"):
        (tmp_path / f"{split}.csv").write_text("text,label\nclear,a\nnot clear,b\n" * 30)
    addresses, status, errors = traced(command, tmp_path)
    assert (addresses, status) == (set(), 2), errors
    assert "write hub:runs/nots" in errors.splitlines()[-1]


def test_a_name_on_the_hub_connects_to_the_hub(tmp_path) -> None:
    endpoint = "http://127.0.0.2:9"  # where nobody listens
    addresses, status, errors = traced(
        "scripts/fill_mask.py --model hub:x/y", tmp_path, HF_ENDPOINT=endpoint
    )
    assert (addresses, status) == ({"127.0.0.2"}, 2), errors
    assert errors.count("\n") == 1
