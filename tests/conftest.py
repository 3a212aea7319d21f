# SPDX-License-Identifier: Apache-2.0
"""A strict harness: eight CPU devices, checked shapes, no silent rank promotion, no network."""

import gzip
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Before anything imports jax or huggingface_hub; scripts started by a test inherit these.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Programs are compiled once, for all tests and for the next run; most of the time is theirs.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "compiled"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"

# What is kept for later starts: compiled programs, and the fonts that plots find.
os.environ["XDG_CACHE_HOME"] = str(ROOT / ".pytest_cache" / "home")

# The user's own secret stays out of the tests; this one gives the same splits in every run.
CONFIGURATION = tempfile.TemporaryDirectory(prefix="bcmb_jax-tests-")
os.environ["XDG_CONFIG_HOME"] = CONFIGURATION.name
_secret = Path(CONFIGURATION.name, "bcmb_jax", "secret")
_secret.parent.mkdir()
_secret.write_bytes(b"the secret of all tests, 32 bytes")
_secret.chmod(0o600)

import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
# Shapes and dtypes of what is passed to these are checked against their signatures.
CHECKED = ("ops", "attention", "model", "losses", "masking")
install_import_hook([f"bcmb_jax.{name}" for name in CHECKED], "beartype.beartype")


LONGEST = ("training", "model", "evaluation", "benchmark", "conversion", "commands", "ops")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest folders, so that at the end no process waits for another's."""
    places = {folder: i for i, folder in enumerate(LONGEST)}
    items.sort(key=lambda x: places.get(x.path.relative_to(ROOT / "tests").parts[0], len(places)))


@pytest.fixture
def strict_dtypes() -> Iterator[None]:
    """Refuse to promote one dtype to another unasked; for modules that name it in `pytestmark`."""
    with jax.numpy_dtype_promotion("strict"):
        yield


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real text, tokenizers and checkpoints beside the checkout."""
    folder = ROOT.parent / "shared"
    if not folder.is_dir():
        pytest.skip(f"needs the data folder {folder}, which is not part of the project")
    return folder


@pytest.fixture(scope="session")
def tiny_tokenizer(tmp_path_factory) -> Path:
    """A folder with a tokenizer of 300 tokens."""
    from bcmb_jax.data.synthetic import train_tokenizer

    directory = tmp_path_factory.mktemp("tokenizer") / "tokenizer"
    train_tokenizer(["a stroke of the left artery", "the left lung is clear"], 300, directory)
    return directory


@pytest.fixture(scope="session")
def shards(tmp_path_factory) -> Path:
    """A folder of prepared synthetic notes; a test that changes it takes a copy."""
    from bcmb_jax.data.synthetic import prepare_synthetic

    folder = tmp_path_factory.mktemp("synthetic") / "data"
    return prepare_synthetic(folder, vocab_size=512, notes=150)


@pytest.fixture
def folder(tmp_path, tiny_tokenizer) -> Path:
    """A Hugging Face folder with random weights and a tokenizer."""
    from conversion.export import write_huggingface
    from tests.fixtures.tiny_weights import random_weights

    directory = tmp_path / "huggingface"
    directory.mkdir()
    write_huggingface(random_weights()._replace(tokenizer=tiny_tokenizer), directory)
    return directory


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """`write(**{"train.tsv": content})` is a folder with these files."""

    def write(files: dict[str, str | bytes]) -> Path:
        for name, content in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            data = content.encode() if isinstance(content, str) else content
            file.write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        return tmp_path

    return write
