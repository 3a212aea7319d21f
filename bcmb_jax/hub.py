# SPDX-License-Identifier: Apache-2.0
"""Meanings of the names of models and tokenizers, and the only use of the network.

A name is a path, `hub:OWNER/NAME` (on the Hugging Face hub; `hub:OWNER/NAME/FILE.pt` for one file
there), or a start by name (`STARTS`). `locate` turns it into a path and never connects. `fetch`
brings what is on the hub into the local cache first: `hub:` says so itself, a start by name only
with `online`. The user's own token is never sent, only that of a file which is given.
"""

import argparse
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError

HUB = "hub:"
TOKENIZER = ("*token*.json", "config.json", "vocab.*", "merges.txt", "*.model")
FILES = {"tokenizer": TOKENIZER, "model": (*TOKENIZER, "model*.safetensors*")}
"""Patterns of the files that are fetched, by what is wanted of a folder on the hub."""
PICKLES = "pytorch_model*.bin*"  # of a model that has no safetensors
BIOCLINICAL = "thomas-sounack/BioClinical-ModernBERT"
MMBERT = ("jhu-clsp/mmBERT-checkpoints", "jhu-clsp/mmBERT-base")
SHOWN = 5  # names in a message


class Start(NamedTuple):
    """A Composer checkpoint on the hub.

    Attributes:
      hub_id: OWNER/NAME of its folder.
      tokenizer: OWNER/NAME of the folder with its tokenizer.
      file: its path, or words that are in the path of no other run there; of a run the newest file
        counts.
      without: words that are not in the path.
    """

    hub_id: str
    tokenizer: str
    file: str
    without: str = ""


def _modernbert(size: str, file: str) -> Start:
    hub_id = f"answerdotai/ModernBERT-{size}"
    return Start(f"{hub_id}-training-checkpoints", hub_id, f"context-extension/{file}")


def _bioclinical(size: str, words: str, without: str = "") -> Start:
    hub_id, tokenizer = f"{BIOCLINICAL}-checkpoints", f"{BIOCLINICAL}-{size}"
    return Start(hub_id, tokenizer, f"{size} {words}", without)


# Stable: the last before the learning rate decays (the recipe's `load_path`); final: after that.
STARTS = {
    "modernbert-base:stable": _modernbert("base", "ep0-ba52988-rank0.pt"),
    "modernbert-large:stable": _modernbert("large", "ep0-ba49552-rank0.pt"),
    "mmbert-base:stable": Start(*MMBERT, "extension/mmbert-base-ext.pt"),
    "mmbert-base:final": Start(*MMBERT, "decay/mmbert-base-all.pt"),
    "bioclinical-modernbert-base:stable": _bioclinical("base", "phase1"),
    "bioclinical-modernbert-large:stable": _bioclinical("large", "phase1"),
    "bioclinical-modernbert-base:final": _bioclinical("base", "phase2", "bio"),
    "bioclinical-modernbert-large:final": _bioclinical("large", "phase2", "bio"),
    "bio-modernbert-base:final": _bioclinical("base", "bio"),
    "bio-modernbert-large:final": _bioclinical("large", "bio"),
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fetch` to a command that takes names."""
    parser.add_argument("--online", action="store_true", help="fetch a start by name, if it is one")
    parser.add_argument(
        "--hub-token-file",
        type=Path,
        metavar="FILE",
        help="send the token in it to the hub (default: none, not even one that is logged in)",
    )


def locate(name: str | Path, what: str = "model") -> Path:
    """Return the path that a name means: itself, or in the local cache; without the network.

    Args:
      what: "model" or "tokenizer".

    Raises:
      InputError: there is nothing of this name here; the message says what it could mean.
    """
    path, name = Path(name).expanduser(), str(name)
    if path.exists():
        return path
    if name in STARTS or name.startswith(HUB):
        return _Hub(local_files_only=True).path(name, what)
    if re.fullmatch(r"\w[\w.-]*/[\w.-]+", name) and path.suffix != ".pt":
        raise InputError(
            f"{what} {name}: there is no such folder here; if it is on the Hugging Face hub, write "
            f"{HUB}{name}, which fetches it"
        )
    starts = "" if "/" in name else f", and the starts by name are {', '.join(STARTS)}"
    raise InputError(f"{what} {name} does not exist: there is no such folder or file{starts}")


def fetch(
    name: str | Path,
    what: str = "model",
    *,
    online: bool = False,
    token_file: str | Path | None = None,
) -> None:
    """Bring what a name means on the hub into the local cache, for `locate`; else do nothing.

    Args:
      what: "model" or "tokenizer".
      online: whether a start by name may be fetched.
      token_file: holds the token to send; None sends none.

    Raises:
      InputError: it can neither be fetched nor is it in the cache, or there is no token in the
        file.
    """
    name = str(name)
    if Path(name).expanduser().exists():
        return
    if name.startswith(HUB) or (online and name in STARTS):
        _Hub(token=_read_token(token_file) if token_file else False).path(name, what)


class _Hub:
    """The hub, or only its local cache.

    Args:
      local_files_only: look only into the cache.
      token: what is sent as the user's; False: nothing, whoever is logged in.
    """

    def __init__(self, *, local_files_only: bool = False, token: str | bool = False):
        self._local, self._token = local_files_only, token

    def path(self, name: str, what: str) -> Path:
        """Return the path of what `hub:` or a start by name means, fetched unless it is there.

        Raises:
          InputError: it cannot be had; the message says what to do.
        """
        try:
            start = STARTS.get(name)
            if start is None:
                hub_id, file = _split(name)
            elif what == "tokenizer":
                hub_id, file = start.tokenizer, ""
            else:
                hub_id, file = start.hub_id, self._file(start)
            if file:
                return self._single(hub_id, file)
            folder = self._folder(hub_id, FILES[what])
            if what == "model" and not any(folder.glob("model*.safetensors")):
                return self._folder(hub_id, (*FILES[what], PICKLES))
            return folder
        except InputError:
            raise
        except Exception as error:  # unknown, gated, no network, malformed: of many types
            raise InputError(f"{what} {name} {self._problem(name, error)}") from error

    def _single(self, hub_id: str, file: str) -> Path:
        from huggingface_hub import hf_hub_download

        path = hf_hub_download(hub_id, file, token=self._token, local_files_only=self._local)
        return Path(path)

    def _folder(self, hub_id: str, patterns: Sequence[str]) -> Path:
        from huggingface_hub import snapshot_download

        path = snapshot_download(
            hub_id,
            allow_patterns=[*patterns],
            token=self._token,
            local_files_only=self._local,
        )
        return Path(path)

    def _file(self, start: Start) -> str:
        """Return the path of a start's file there.

        Raises:
          InputError: words name no single run.
        """
        if start.file.endswith(".pt"):
            return start.file
        with_words, without = start.file.split(), start.without.split()
        runs: dict[str, list[str]] = {}
        files = sorted(x for x in self._list(start.hub_id) if x.endswith(".pt"))
        for file in files:
            words = re.split(r"[^a-z0-9]+", re.sub(r"phase[^a-z0-9]+", "phase", file.lower()))
            if set(with_words) <= set(words) and not set(without) & set(words):
                runs.setdefault(file.rpartition("/")[0], []).append(file)
        if len(runs) != 1:
            more = f" and {len(files) - SHOWN} more" if len(files) > SHOWN else ""
            raise InputError(
                f"{len(runs)} runs of {start.hub_id} are called {start.file}; give one of its "
                f"{len(files)} files as {HUB}{start.hub_id}/FILE.pt: "
                f"{', '.join(files[:SHOWN])}{more}"
            )
        (run,) = runs.values()
        return max(run, key=lambda file: [int(x) for x in re.findall(r"\bba(\d+)", file)])

    def _list(self, hub_id: str) -> list[str]:
        """Return the paths of all files of a folder there, or of those in the cache."""
        from huggingface_hub import HfApi

        if not self._local:
            with suppress(Exception):  # no network: what is in the cache may do
                return list(HfApi(token=self._token).list_repo_files(hub_id))
        folder = _Hub(local_files_only=True)._folder(hub_id, ())
        return [x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file()]

    def _problem(self, name: str, error: Exception) -> str:
        if not self._local:
            return (
                f"can neither be fetched from the Hugging Face hub ({type(error).__name__}) nor is "
                "it in the local cache: check the name (a private or gated one needs "
                "--hub-token-file), or fetch it elsewhere and give its path"
            )
        where, start = name.removeprefix(HUB), STARTS.get(name)
        if start:
            where = f"{start.hub_id} {start.file}" if start.file.endswith(".pt") else start.hub_id
        how = "add --online (online=True)" if start else "let a command or from_pretrained fetch it"
        return f"is not in the local cache: {how}, or give the path of hf download {where}"


def _split(name: str) -> tuple[str, str]:
    """Return OWNER/NAME and, for a single file there, its path."""
    parts = name.removeprefix(HUB).split("/", 2)
    is_file = len(parts) == 3 and parts[2].endswith(".pt")
    if len(parts) < 2 or not all(parts) or (len(parts) == 3 and not is_file):
        raise InputError(f"{name}: write {HUB}OWNER/NAME, or {HUB}OWNER/NAME/FILE.pt")
    return "/".join(parts[:2]), parts[2] if is_file else ""


def _read_token(file: str | Path) -> str:
    try:
        token = Path(file).expanduser().read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise InputError(f"--hub-token-file {file} cannot be read: give the file of a token") from (
            error
        )
    if not re.fullmatch(r"[!-~]+", token):
        raise InputError(f"--hub-token-file {file} must hold a token and nothing else")
    return token
