# SPDX-License-Identifier: Apache-2.0
"""Files of the Hugging Face hub, from the local cache or fetched into it, for ids users name."""

from collections.abc import Sequence
from pathlib import Path

from bcmb_jax.errors import InputError


def snapshot(hub_id: str, what: str, patterns: Sequence[str]) -> Path:
    """Return the folder of a hub id with its files of these patterns.

    Args:
      what: name of the thing in messages, as "tokenizer".

    Raises:
      InputError: it cannot be had, or the id does not look like one.
    """
    from huggingface_hub import snapshot_download

    if hub_id.startswith(("/", ".", "~")) or hub_id.count("/") > 1:
        raise InputError(f"{what} {hub_id} does not exist")
    try:
        return Path(snapshot_download(hub_id, allow_patterns=list(patterns)))
    except Exception as error:  # offline, unknown, gated, malformed: all mean the same to the user
        raise InputError(
            f"{what} {hub_id} is neither a path nor a hub id that can be had here "
            f"({type(error).__name__}): give a path, or fetch it once online"
        ) from error


def single_file(hub_id: str, name: str) -> Path:
    """Return the path of one file of a hub id.

    Raises:
      InputError: it cannot be had; the message says how to fetch it.
    """
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(hub_id, name))
    except Exception as error:  # as above
        raise InputError(
            f"{name} of {hub_id} cannot be had here ({type(error).__name__}): fetch it where there "
            f"is a network (hf download {hub_id} {name}) and give the path of the file"
        ) from error


def list_files(hub_id: str) -> list[str]:
    """Return the paths of all files of a hub id, or of those in the local cache where it is alone.

    Raises:
      InputError: the hub cannot be asked, and nothing of it is in the cache.
    """
    from huggingface_hub import HfApi, snapshot_download

    try:
        return list(HfApi().list_repo_files(hub_id))
    except Exception as error:  # as above
        try:
            folder = Path(snapshot_download(hub_id, local_files_only=True))
        except Exception:
            raise InputError(
                f"the files of {hub_id} cannot be listed here ({type(error).__name__}): fetch one "
                f"where there is a network (hf download {hub_id} FILE) and give its path"
            ) from error
        return [x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file()]
