# SPDX-License-Identifier: Apache-2.0
"""GPUs to compile for without having one: what XLA asks of a device, from NVIDIA's data sheets."""

import jax
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

HOPPER = {
    "device_description_str": "NVIDIA H100 80GB HBM3",
    "capability": (9, 0),
    "core_count": 132,
    "fpus_per_core": 128,
    "shared_memory_per_core": 233_472,
    "shared_memory_per_block_optin": 232_448,
    "l2_cache_size": 50 * 2**20,
    "clock_rate_ghz": 1.98,
    "memory_bandwidth": 3_352_320_000_000,
    "device_memory_size": 80 * 10**9,
}
AMPERE = {
    "device_description_str": "NVIDIA A100-SXM4-80GB",
    "capability": (8, 0),
    "core_count": 108,
    "fpus_per_core": 64,
    "shared_memory_per_core": 167_936,
    "shared_memory_per_block_optin": 166_912,
    "l2_cache_size": 40 * 2**20,
    "clock_rate_ghz": 1.41,
    "memory_bandwidth": 2_039_000_000_000,
    "device_memory_size": 80 * 10**9,
}
BLACKWELL = HOPPER | {
    "device_description_str": "NVIDIA B200",
    "capability": (10, 0),
    "core_count": 148,
    "l2_cache_size": 126 * 2**20,
    "clock_rate_ghz": 1.965,
    "memory_bandwidth": 8_000_000_000_000,
    "device_memory_size": 180 * 10**9,
}
GPUS = {
    "B200": BLACKWELL,
    "H100": HOPPER,
    "A100": AMPERE,
    "A100-40": AMPERE | {"device_memory_size": 40 * 10**9},
}
OF_ALL = {
    "threads_per_block_limit": 1024,
    "threads_per_warp": 32,
    "threads_per_core_limit": 2048,
    "shared_memory_per_block": 49_152,
    "registers_per_core_limit": 65_536,
    "registers_per_block_limit": 65_536,
    "block_dim_limit_x": 2**31 - 1,
    "block_dim_limit_y": 65_535,
    "block_dim_limit_z": 65_535,
}


def make_mesh(gpu: str, data: int, fsdp: int, tensor: int, hosts: int = 1) -> Mesh:
    """`data × fsdp × tensor` GPUs of hosts that are not there, each of which has equally many."""
    on_each = data * fsdp * tensor // hosts
    topology = topologies.get_topology_desc(
        platform="cuda", target_config=_target_config(gpu), topology=f"1x{hosts}x{on_each}"
    )
    devices = np.array(topology.devices).reshape(data, fsdp, tensor)
    return Mesh(devices, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)


def _target_config(gpu: str) -> str:
    """XLA's `GpuTargetConfigProto` as text."""
    facts = dict(GPUS[gpu])
    name, (major, minor) = facts.pop("device_description_str"), facts.pop("capability")
    info = "\n".join(f"{key}: {value}" for key, value in (OF_ALL | facts).items())
    return f"""
        gpu_device_info {{
          {info}
          cuda_compute_capability {{ major: {major} minor: {minor} }}
        }}
        platform_name: "CUDA"
        dnn_version_info {{ major: 9 minor: 10 }}
        runtime_version {{ major: 12 minor: 9 patch: 0 }}
        device_description_str: "{name}"
    """
