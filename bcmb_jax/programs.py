# SPDX-License-Identifier: Apache-2.0
"""Compiled programs, kept for later starts where only their user can write.

A kept program is native code that JAX loads and runs, so it never lies in a run's folder, which may
be shared or come from somebody else. Each carries a checksum, and one that is damaged is removed
and compiled anew.
"""

import contextlib
import hashlib
import logging
import os
import platform
import re
import stat
import tempfile
from pathlib import Path

import jax
from jax._src import compilation_cache
from jax._src.compilation_cache_interface import CacheInterface

from bcmb_jax import private

log = logging.getLogger(__name__)

MOST_BYTES = 2 * 2**30
"""Bytes of all programs of a user; those that were not used for longest are removed first."""
_DIGEST = hashlib.sha256().digest_size


def keep_programs() -> None:
    """Keep compiled programs for later starts, unless JAX is told where.

    Call it when this process has joined the others of its run: devices are asked for their kind.
    """
    # The key of a GPU kernel would else contain the line numbers of its source.
    jax.config.update("jax_traceback_in_locations_limit", 0)
    if jax.config.values["jax_compilation_cache_dir"] is not None:
        return
    try:
        folder = own_folder()
    except (OSError, RuntimeError) as error:
        log.warning("compiled programs are not kept, so each start compiles: %s", error)
        return
    # What JAX itself would put there has no checksum, and what XLA would has no bound.
    compilation_cache.get_file_cache = lambda path: (Programs(Path(path)), path)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")
    jax.config.update("jax_compilation_cache_dir", str(folder))


def own_folder() -> Path:
    """Make the folder of this JAX, device and machine, in the user's folder of caches.

    Raises:
      OSError: others may write in it, or it cannot be made; RuntimeError: the user has no home.
    """
    configured = os.environ.get("XDG_CACHE_HOME", "")
    caches = Path(configured) if os.path.isabs(configured) else Path.home() / ".cache"
    kind = re.sub(r"\W+", "_", jax.local_devices()[0].device_kind)
    own = Path("bcmb_jax", "compiled", f"{jax.__version__}-{kind}-{_machine()}")
    caches.mkdir(parents=True, exist_ok=True)
    for part in reversed([own, *own.parents[:-1]]):
        folder = caches / part
        with contextlib.suppress(FileExistsError):
            folder.mkdir(0o700)
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid():
            raise PermissionError(f"{folder} is not a folder of yours: remove it")
        if found.st_mode & 0o077:
            mode = stat.S_IMODE(found.st_mode)
            raise PermissionError(f"{folder} is open to others ({mode:04o}): chmod 700 {folder}")
    return caches / own


def _machine() -> str:
    """Return a hash of what this machine's CPU can do: a home may be shared by several kinds."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else [platform.processor()]
    able = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return hashlib.sha256(f"{platform.machine()} {able}".encode()).hexdigest()[:12]


class Programs(CacheInterface):
    """The programs in a folder, as JAX asks for them: whole, with the right checksum, or none.

    Several processes may use a folder at once. The programs of all folders beside it count towards
    `MOST_BYTES`.
    """

    def __init__(self, folder: Path):
        self._path = folder

    def get(self, key: str) -> bytes | None:
        """Return a program, or None where there is none; a damaged one is removed."""
        file = self._path / key
        try:
            content = file.read_bytes()
        except OSError:
            return None
        program = content[_DIGEST:]
        if content[:_DIGEST] != _digest(key, program):
            log.warning("%s was damaged: it is removed, and the program compiled anew", file)
            with contextlib.suppress(OSError):
                file.unlink()
            return None
        with contextlib.suppress(OSError):
            os.utime(file)
        return program

    def put(self, key: str, program: bytes) -> None:
        """Keep a program, and remove those not used for longest where all become too many."""
        try:
            with tempfile.TemporaryDirectory(dir=self._path) as building:  # of mode 0700
                new = Path(building, key)
                with open(new, "xb", opener=private.opener) as out:
                    out.write(_digest(key, program) + program)
                os.replace(new, self._path / key)
        except OSError as error:
            log.warning("a compiled program is not kept: %s", error)
        with contextlib.suppress(FileNotFoundError):  # another process removes them too
            self._remove_oldest()

    def _remove_oldest(self) -> None:
        size = 0
        found = [(file, file.stat()) for file in self._path.parent.rglob("*") if file.is_file()]
        for file, status in sorted(found, key=lambda each: each[1].st_mtime, reverse=True):
            size += status.st_size
            if size > MOST_BYTES:
                file.unlink()


def _digest(key: str, program: bytes) -> bytes:
    return hashlib.sha256(key.encode() + program).digest()
