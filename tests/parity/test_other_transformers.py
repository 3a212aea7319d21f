# SPDX-License-Identifier: Apache-2.0
"""Exports load in transformers 4.48 and 4.57 as in 5.x: same outputs, same tokens, every head."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.model.heads import MODELS, Head
from conversion.convert import convert
from conversion.export import write_huggingface
from conversion.weights import read
from tests.fixtures.tiny_weights import TINY, random_weights
from tests.fixtures.torch_models import random_rows

pytestmark = pytest.mark.torch

NONE = pytest.mark.skip(reason="no transformers-4.* beside it: `make parity` installs them there")
VERSIONS = sorted(Path(sys.prefix).glob("transformers-4.*")) or [pytest.param(None, marks=NONE)]
TEXT = "the left lung [MASK] clear"


@pytest.fixture(scope="module")
def exports(tmp_path_factory, tiny_tokenizer) -> tuple[Path, dict[str, np.ndarray]]:
    """A model of each head, from Orbax, and what the installed transformers makes of them."""
    folder = tmp_path_factory.mktemp("exports")
    for kind in MODELS:
        head = Head(kind, ("a", "b", "c") if kind.endswith("_classification") else (), "cls")
        source = folder / f"{kind}-source"
        source.mkdir()
        write_huggingface(random_weights(head=head)._replace(tokenizer=tiny_tokenizer), source)
        convert(str(source), "orbax", folder / f"{kind}-orbax")
        convert(str(folder / f"{kind}-orbax"), "huggingface", folder / kind)
    tokens, mask = random_rows([90], [31], length=96, config=TINY)
    np.savez(folder / "inputs.npz", tokens=tokens, mask=mask, text=np.array(TEXT))
    return folder, outputs(folder, {})


def outputs(folder: Path, environment: dict[str, str]) -> dict[str, np.ndarray]:
    script = Path(__file__).parents[1] / "fixtures" / "load_elsewhere.py"
    command = [sys.executable, str(script), str(folder)]
    subprocess.run(command, env=os.environ | environment, check=True)
    return dict(np.load(folder / "outputs.npz"))


@pytest.mark.parametrize("place", VERSIONS, ids=lambda place: place and place.name)
def test_outputs_are_the_same(place, exports) -> None:
    folder, here = exports
    there = outputs(folder, {"PYTHONPATH": str(place)})
    assert len(here["words"]) <= len(here["ids"]) + 1  # words as in running text, not in pieces
    assert place.name == f"transformers-{there.pop('version')}"
    real = np.load(folder / "inputs.npz")["mask"] > 0
    for name, x in there.items():
        if name in ("ids", "words"):
            np.testing.assert_array_equal(x, here[name])
            continue
        assert x.shape == here[name].shape
        per_token = x.shape[:2] == real.shape
        ours, theirs = (y[real] if per_token else y for y in (here[name], x))
        assert np.abs(ours - theirs).max() <= 2e-5, name


LAYOUTS = """
import json, sys
from transformers import AutoModelForMaskedLM
models = [AutoModelForMaskedLM.from_pretrained(path) for path in sys.argv[1:]]
print(json.dumps([model.decoder.bias.tolist() for model in models]))
"""


@pytest.mark.parametrize("place", VERSIONS, ids=lambda place: place and place.name)
def test_of_several_layouts_the_same_one_is_read(place, shared) -> None:
    cases = shared / "cases" / "24-stale-shards"
    folders = [str(folder) for folder in sorted(cases.iterdir()) if folder.is_dir()]
    there = subprocess.run(
        [sys.executable, "-c", LAYOUTS, *folders],
        env=os.environ | {"PYTHONPATH": str(place)},
        check=True,
        capture_output=True,
        text=True,
    )
    theirs = json.loads(there.stdout)
    for folder, bias in zip(folders, theirs, strict=True):
        assert read(folder).params["decoder.bias"].tolist() == bias, folder
