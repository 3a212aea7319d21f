# SPDX-License-Identifier: Apache-2.0
"""The place of a process among those of a run, as the command line, SLURM or Open MPI gives it."""

import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from bcmb_jax.errors import InputError


class Place(NamedTuple):
    """One process among those of a run."""

    coordinator: str
    """`HOST:PORT` of process 0."""
    processes: int
    process: int
    hosts: int = 0
    """Number of hosts; 0: not known."""


def find_place(
    environment: Mapping[str, str], coordinator: str = "", processes: int = 0, process: int = -1
) -> Place | None:
    """Return the place that was given, or that Open MPI or SLURM gave; None for a single process.

    Args:
      coordinator, processes, process: as on the command line; a coordinator may be given alone to
        processes that Open MPI or SLURM started.

    Raises:
      InputError: the values do not fit together, or do not say where the coordinator is.
    """
    get = environment.get
    if processes or process >= 0:
        if not coordinator or not 0 <= process < processes:
            raise InputError(
                f"--coordinator {coordinator!r} --processes {processes} --process {process}: give "
                "all three, the coordinator as HOST:PORT and the process from 0 to processes - 1"
            )
        place = Place(coordinator, processes, process)
    elif int(get("OMPI_COMM_WORLD_SIZE", "1")) > 1:
        size, local = (int(environment[f"OMPI_COMM_WORLD_{x}SIZE"]) for x in ("", "LOCAL_"))
        job = get("PMIX_NAMESPACE") or get("OMPI_MCA_orte_hnp_uri") or ""
        launcher = re.search(r"prterun-(.+)-\d+@", job) or re.search(r"tcp://(.+?)[,:]", job)
        host = "127.0.0.1" if local == size else launcher[1] if launcher else ""
        if not coordinator and not host:
            raise InputError("mpirun does not say where it runs: give --coordinator HOST:PORT")
        hosts = 1 if local == size else 2  # or more
        address = coordinator or f"{host}:{_port(job)}"
        place = Place(address, size, int(environment["OMPI_COMM_WORLD_RANK"]), hosts)
    elif int(get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        nodes = get("SLURM_STEP_NODELIST") or environment["SLURM_JOB_NODELIST"]
        address = coordinator or f"{first_host(nodes)}:{_port(get('SLURM_JOB_ID', ''))}"
        hosts = int(get("SLURM_STEP_NUM_NODES", get("SLURM_NNODES", "0")))
        tasks = int(environment["SLURM_STEP_NUM_TASKS"])
        place = Place(address, tasks, int(environment["SLURM_PROCID"]), hosts)
    else:
        return None
    host, _, port = place.coordinator.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 2**16:
        raise InputError(f"coordinator {place.coordinator!r} is not of the form HOST:PORT")
    if place.hosts > 1 and is_loopback(host):
        raise InputError(
            f"coordinator {place.coordinator} is a loopback address, which processes on other "
            "hosts cannot reach; name the host of process 0 as the others know it"
        )
    return place


def first_host(nodes: str) -> str:
    """Return the first of SLURM's list of nodes, such as `gpu[003-007,012],login1`."""
    match = re.match(r"([^,\[]+)(?:\[(\w+))?", nodes)
    return f"{match[1]}{match[2] or ''}" if match else nodes


def _port(job: str) -> int:
    return 61440 + zlib.crc32(job.encode()) % 4096  # above the ports that systems give away


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """Return which of the GPUs of its host a process takes; None is all that it sees.

    One process on a host takes all of them, several take equal shares, unless the launcher shows
    each only its own.
    """
    get = environment.get
    bound = any(key in environment for key in ("SLURM_GPUS_PER_TASK", "SLURM_GPU_BIND"))
    visible = [x for x in get("CUDA_VISIBLE_DEVICES", "").split(",") if x]
    count = len(visible) or len(list(Path("/dev").glob("nvidia[0-9]*")))
    local, size = int(get("OMPI_COMM_WORLD_LOCAL_RANK", "0")), get("OMPI_COMM_WORLD_LOCAL_SIZE")
    if size is None:
        tasks = get("SLURM_STEP_TASKS_PER_NODE", "1")
        per_node = [
            int(n) for n, times in re.findall(r"(\d+)(?:\(x(\d+)\))?", tasks)
            for _ in range(int(times or 1))
        ]  # fmt: skip
        node = int(get("SLURM_NODEID", "0"))
        local, size = int(get("SLURM_LOCALID", "0")), str(per_node[min(node, len(per_node) - 1)])
    share, rest = divmod(count, int(size))
    if bound or int(size) == 1 or not share or rest:
        return None
    return list(range(local * share, (local + 1) * share))


def is_loopback(host: str) -> bool:
    """Tell whether a name or an address means the machine itself."""
    return host in ("localhost", "::1", "[::1]") or host.startswith("127.")
