# SPDX-License-Identifier: Apache-2.0
"""The peers: transformers' ModernBERT in PyTorch, on padded batches, in the ways listed here.

Each way is a function that returns when its work is done; the fastest of them is the peer. Weights
are random, of the same sizes. `fp32` means full fp32, TF32 is not used.
"""

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.setting import Setting
from bcmb_jax.benchmark.timing import progress
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion import torch_models

WAYS = ("eager", "sdpa", "compile")
AUTOCAST = "+autocast"
"""Behind a way: bf16 as training mostly does it, from fp32 weights, instead of bf16 weights."""
COMPILED = "+compile"
ON_CUDA = ("flash_attention_2", "flash_attention_2" + COMPILED, "packed_encoders")
"""Further ways in bf16, where a GPU and their modules are there."""


def ways_here(precision: str = "fp32", *, autocast: bool = False) -> list[str]:
    """The ways that can be run on this machine.

    Args:
      autocast: each of them with `AUTOCAST` too.

    Raises:
      InputError: PyTorch is missing.
    """
    here = list(WAYS)
    if _has_cuda() and precision == "bf16":
        here += filter(_installed, ON_CUDA)
    return here + [way + AUTOCAST for way in here if autocast]


def attention_ways_here(precision: str) -> list[str]:
    """As `ways_here`, of attention alone."""
    flash = _has_cuda() and precision == "bf16" and _installed("flash_attention_2")
    return ["sdpa", "flash_attention_2"] if flash else ["sdpa"]


def _installed(way: str) -> bool:
    flash = importlib.util.find_spec("flash_attn")
    if way == "packed_encoders":
        return flash is not None and importlib.util.find_spec("packed_encoders") is not None
    # FlashAttention-4 alone leaves a folder of that name, without the code of 2.
    return flash is not None and flash.origin is not None


def _has_cuda() -> bool:
    return torch_models.import_torch("--compare torch").cuda.is_available()


def choose_ways(asked: str, here: list[str]) -> list[str]:
    """Those of `here` that `asked` names, with commas; all if it names none.

    Raises:
      InputError: it names another.
    """
    chosen = asked.split(",") if asked else here
    if missing := [name for name in chosen if name not in here]:
        raise InputError(f"no way to run {missing[0]!r} here; there are {', '.join(here)}")
    return chosen


class TorchPeer:
    """One model and its batches in PyTorch.

    Args:
      batches: padded rows, one document each, and for training labels: `[B, L]`, -100 where
        nothing is predicted, or a classifier's, `[B]` or (multi-label, floats) `[B, labels]`.
      way: of `ways_here`.
    """

    def __init__(
        self,
        config: ModelConfig,
        head: Head,
        batches: Sequence[tuple[Batch, np.ndarray | None]],
        *,
        precision: str,
        way: str,
    ):
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._autocast = way.endswith(AUTOCAST)
        way = way.removesuffix(AUTOCAST)
        bf16 = precision == "bf16" and not self._autocast
        weights = torch.bfloat16 if bf16 else torch.float32
        self.model = make_model(config, head, way).to(self._device, weights)
        if way == "packed_encoders":  # looks for weights on a GPU
            import packed_encoders

            # Else it falls back to padded rows, without a word, where FlashAttention-4 is missing.
            packed_encoders.pack(self.model, attention_backend="flash")
        # As ours, for each shape: with dynamic ones it is slower.
        compiles = way.endswith("compile")
        self._run = torch.compile(self.model, dynamic=False) if compiles else self.model
        self._batches = [self._on_device(*batch) for batch in batches]
        self._optimizer: Any = None

    def forward(self) -> None:
        """Hidden states or logits of every batch, in evaluation mode."""
        import torch

        self.model.eval()
        with torch.inference_mode(), self._casting():
            for inputs in self._batches:
                self._run(**inputs)
        self._wait()

    def step(self) -> None:
        """Loss, gradients and an AdamW step of every batch; the dropout is 0, as on our side."""
        import torch

        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.model.train()
        for inputs in self._batches:
            with self._casting():
                loss = self._run(**inputs).loss
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        self._wait()

    def _casting(self):
        import torch

        return torch.autocast(self._device, torch.bfloat16, enabled=self._autocast)

    def _wait(self) -> None:
        import torch

        if self._device == "cuda":
            torch.cuda.synchronize()

    def _on_device(self, batch: Batch, labels: np.ndarray | None) -> dict[str, Any]:
        import torch

        arrays = {"input_ids": batch.tokens}
        if (batch.segment_ids == 0).any():
            arrays["attention_mask"] = batch.segment_ids
        if labels is not None:
            arrays["labels"] = labels
        return {
            name: torch.from_numpy(x if x.dtype == np.float32 else np.asarray(x, np.int64)).to(
                self._device
            )
            for name, x in arrays.items()
        }


def make_model(config: ModelConfig, head: Head, way: str) -> Any:
    """transformers' model of these sizes with random weights, without dropout."""
    attention = way.removesuffix(COMPILED)
    return torch_models.build_modernbert(
        config,
        head,
        attention=attention if attention in ("eager", "flash_attention_2") else "sdpa",
        sparse_prediction=True,  # the decoder at labelled positions only, as ours
    )


class Peer(NamedTuple):
    """Attributes:
    sides: for `timing.race`: the fastest way by its name in results; empty if none was asked for.
    competed: the ways that it was the fastest of.
    """

    sides: dict[str, Callable[[], None]]
    competed: list[str]


def fastest_peer(
    setting: Setting,
    head: Head,
    batches: Sequence[tuple[Batch, np.ndarray | None]],
    *,
    train: bool,
) -> Peer:
    """Of the setting's ways the one whose second call is the fastest; one that fails is told and
    left out.

    Args:
      head, batches: as of `TorchPeer`.
      train: steps, else forward passes.

    Raises:
      InputError: none of them runs here.
    """

    def prepare(way: str) -> Callable[[], None]:
        peer = TorchPeer(setting.config, head, batches, precision=setting.precision, way=way)
        return peer.step if train else peer.forward

    ways = list(setting.ways)
    if not ways:
        return Peer({}, [])
    if len(ways) == 1:
        return Peer({f"transformers {ways[0]}": prepare(ways[0])}, ways)

    def timed(way: str) -> tuple[float, str, Callable[[], None]]:
        run = prepare(way)
        run()
        start = time.perf_counter()
        run()
        return time.perf_counter() - start, way, run

    best: tuple[float, str, Callable[[], None]] = (float("inf"), "", lambda: None)
    ran: list[str] = []
    import torch

    for way in ways:
        progress(f"warming up transformers {way}")
        try:
            best = min(best, timed(way), key=lambda x: x[0])  # only the fastest stays in memory
            ran.append(way)
        except Exception as error:  # a way that cannot run here must not end the others' race
            print(f"transformers {way} left out: {type(error).__name__}: {error}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    progress("")
    if not ran:
        raise InputError(
            f"PyTorch can run this in none of these ways: {', '.join(ways)} (why is above); if "
            "memory is short: fewer --documents, or shorter rows"
        )
    return Peer({f"transformers {best[1]}": best[2]}, ran)
