# SPDX-License-Identifier: Apache-2.0
"""The user's secret, which keeps identifiers from being searched for in what is prepared.

A plain hash of a record number hides nothing: whoever has one prepared note tries all ten million
record numbers and sees which gives its surrogates. With a key that only the data's owner has, every
number gives something else, and there is nothing to try.

A secret is a file of at least 32 bytes; the empty bytes mean that there is none.
"""

import hashlib
import hmac
import os
import secrets
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from bcmb_jax.errors import InputError
from bcmb_jax.private import make_directory

NO_SECRET = "none"
"""The name of a secret's file that stands for having none."""
LEAST_BYTES, MOST_BYTES = 32, 4096


def default_file() -> Path:
    """Return where a user's secret lies: `bcmb_jax/secret` in the folder of configurations."""
    configured = os.environ.get("XDG_CONFIG_HOME", "")
    folder = Path(configured) if os.path.isabs(configured) else Path.home() / ".config"
    return folder / "bcmb_jax" / "secret"


def choose_secret(
    name: str | None, *, needed: bool, say: Callable[[str], None] = lambda _: None
) -> bytes:
    """Return the secret of the file `name` or, if one is needed, the user's own; else none.

    Args:
      name: "none" for no secret.
      say: called with a line if the user's own is made.
    """
    if name == NO_SECRET or not (name or needed):
        return b""
    secret, made = read_secret(Path(name).expanduser() if name else None)
    if made:
        say(
            f"made the secret {default_file()}, for your eyes alone: it chooses splits and "
            "surrogates where records may be of persons (--secret-file none does without); keep a "
            "copy, and use the same one wherever patients must stay the same"
        )
    return secret


def read_secret(file: Path | None = None) -> tuple[bytes, bool]:
    """Return the secret of a file, and whether it was made just now.

    Args:
      file: None for the user's own, which is made if it is missing. Any other must exist: a
        mistyped name would otherwise quietly give all patients other surrogates.

    Raises:
      InputError: the file is missing, too short, too long, or not for its owner's eyes alone.
    """
    if file is None:
        file = default_file()
        made = not file.exists() and _make(file)
    else:
        made = False
        if not file.exists():
            raise InputError(
                f"secret file {file} does not exist: leave --secret-file out to have one made in "
                f"{default_file()}, or make it with (umask 077; head -c 32 /dev/urandom > FILE)"
            )
    mode = file.stat().st_mode
    if not stat.S_ISREG(mode):
        raise InputError(f"secret file {file} is not a file: name one with 32 random bytes")
    if mode & 0o077:
        raise InputError(
            f"secret file {file} is open to others (mode {stat.S_IMODE(mode):04o}): "
            f"chmod 600 {file}"
        )
    with file.open("rb") as stream:
        secret = stream.read(MOST_BYTES + 1)
    if not LEAST_BYTES <= len(secret) <= MOST_BYTES:
        size = f"more than {MOST_BYTES:,}" if len(secret) > MOST_BYTES else len(secret)
        raise InputError(
            f"secret file {file} holds {size} bytes, {LEAST_BYTES} to {MOST_BYTES:,} are needed: "
            f"restore it, or remove it and make one with "
            f"(umask 077; head -c {LEAST_BYTES} /dev/urandom > {file})"
        )
    return secret, made


def _make(file: Path) -> bool:
    """Write a new secret, whole or not at all; return False if another process was quicker."""
    make_directory(file.parent)
    with tempfile.NamedTemporaryFile(dir=file.parent) as new:  # of mode 0600
        new.write(secrets.token_bytes(LEAST_BYTES))
        new.flush()
        os.fsync(new.fileno())
        try:
            os.link(new.name, file)
        except FileExistsError:
            return False
    return True


def keyed_hash(secret: bytes, purpose: str, text: str) -> bytes:
    """Return 32 bytes that depend on the text and, where there is a secret, cannot be had without.

    HMAC-SHA256 with a key for each purpose, so that nothing written for one tells of another; the
    text's SHA-256 without a secret.
    """
    data = text.encode("utf-8", "surrogatepass")
    if not secret:
        return hashlib.sha256(data).digest()
    return hmac.digest(purpose_key(secret, purpose), data, "sha256")


def purpose_key(secret: bytes, purpose: str) -> bytes:
    """Return a key for one purpose, 32 bytes; none without a secret."""
    return hmac.digest(secret, purpose.encode(), "sha256") if secret else b""


def check_value(secret: bytes) -> str | None:
    """Return what tells secrets apart and may stand beside prepared data; None without a secret.

    It can only be searched for by trying secrets, of which there are 2^256 where they are random.
    """
    return purpose_key(secret, "check").hex()[:16] or None
