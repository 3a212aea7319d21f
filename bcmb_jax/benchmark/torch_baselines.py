# SPDX-License-Identifier: Apache-2.0
"""The baseline in PyTorch: transformers' ModernBERT on padded batches, by the fastest candidate.

A candidate is a way to run the model: an attention implementation, compiled or not. Weights are
random, of the same sizes. `fp32` means full fp32, TF32 is not used.
"""

import importlib.util
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.report import Setting
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from bcmb_jax.terminal import Display
from conversion import torch_models

CANDIDATES = ("eager", "sdpa", "compile")
AUTOCAST = "+autocast"
"""Suffix of a candidate: bf16 as training mostly does it, from fp32 instead of bf16 weights."""
COMPILED = "+compile"
ON_CUDA = ("flash_attention_2", "flash_attention_2" + COMPILED, "packed_encoders")
"""Further candidates in bf16, where there are a GPU and their modules."""


def candidates_here(precision: str = "fp32", *, autocast: bool = False) -> list[str]:
    """Return the candidates that can run on this machine.

    Args:
      autocast: add each of them with `AUTOCAST` too.

    Raises:
      InputError: PyTorch is missing.
    """
    here = list(CANDIDATES)
    if _has_cuda() and precision == "bf16":
        here += filter(_installed, ON_CUDA)
    return here + [candidate + AUTOCAST for candidate in here if autocast]


def attention_candidates_here(precision: str) -> list[str]:
    """Return the candidates for attention alone that can run on this machine."""
    flash = _has_cuda() and precision == "bf16" and _installed("flash_attention_2")
    return ["sdpa", "flash_attention_2"] if flash else ["sdpa"]


def _installed(candidate: str) -> bool:
    flash = importlib.util.find_spec("flash_attn")
    if candidate == "packed_encoders":
        return flash is not None and importlib.util.find_spec("packed_encoders") is not None
    # FlashAttention-4 alone leaves a folder of that name, without the code of 2.
    return flash is not None and flash.origin is not None


def _has_cuda() -> bool:
    return torch_models.import_torch("--compare torch").cuda.is_available()


def choose_candidates(asked: str, here: list[str]) -> list[str]:
    """Return those of `here` that `asked` names, separated by commas; all if it is empty.

    Raises:
      InputError: it names another.
    """
    chosen = asked.split(",") if asked else here
    if missing := [name for name in chosen if name not in here]:
        raise InputError(f"no way to run {missing[0]!r} here; there are {', '.join(here)}")
    return chosen


class TorchBaseline:
    """A model and its batches in PyTorch.

    Args:
      batches: padded rows, one document each, and for training labels: `[B, L]`, -100 where
        nothing is predicted, or a classifier's, `[B]` or (multi-label, floats) `[B, labels]`.
      candidate: one of `candidates_here`.
    """

    def __init__(
        self,
        config: ModelConfig,
        head: Head,
        batches: Sequence[tuple[Batch, np.ndarray | None]],
        *,
        precision: str,
        candidate: str,
    ):
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._autocast = candidate.endswith(AUTOCAST)
        candidate = candidate.removesuffix(AUTOCAST)
        bf16 = precision == "bf16" and not self._autocast
        weights = torch.bfloat16 if bf16 else torch.float32
        self.model = make_model(config, head, candidate).to(self._device, weights)
        if candidate == "packed_encoders":  # looks for weights on a GPU
            import packed_encoders

            # Else it falls back to padded rows, without a word, where FlashAttention-4 is missing.
            packed_encoders.pack(self.model, attention_backend="flash")
        # As ours, for each shape: with dynamic ones it is slower.
        compiles = candidate.endswith("compile")
        self._run = torch.compile(self.model, dynamic=False) if compiles else self.model
        self._batches = [self._on_device(*batch) for batch in batches]
        self._optimizer: Any = None

    def forward(self) -> None:
        """Compute hidden states or logits of every batch, in evaluation mode."""
        import torch

        self.model.eval()
        with torch.inference_mode(), self._casting():
            for inputs in self._batches:
                self._run(**inputs)
        self._wait()

    def step(self) -> None:
        """Take an AdamW step on every batch; dropout is 0, as on our side."""
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


def make_model(config: ModelConfig, head: Head, candidate: str) -> Any:
    """Make transformers' model of these sizes with random weights, without dropout."""
    attention = candidate.removesuffix(COMPILED)
    return torch_models.build_modernbert(
        config,
        head,
        attention=attention if attention in ("eager", "flash_attention_2") else "sdpa",
        sparse_prediction=True,  # the decoder at labelled positions only, as ours
    )


class Baseline(NamedTuple):
    """The fastest candidate.

    Attributes:
      run: for `time_interleaved`: its function by its name in results; empty if there is none.
      competed: the candidates that it was the fastest of.
    """

    run: dict[str, Callable[[], None]]
    competed: list[str]


def fastest_baseline(
    setting: Setting,
    head: Head,
    batches: Sequence[tuple[Batch, np.ndarray | None]],
    *,
    train: bool,
) -> Baseline:
    """Return the setting's candidate whose second call is the fastest.

    A candidate that fails is reported and left out.

    Args:
      head, batches: as in `TorchBaseline`.
      train: time steps, else forward passes.

    Raises:
      InputError: none of them runs here.
    """

    def prepare(candidate: str) -> Callable[[], None]:
        baseline = TorchBaseline(
            setting.config, head, batches, precision=setting.precision, candidate=candidate
        )
        return baseline.step if train else baseline.forward

    candidates = list(setting.candidates)
    if not candidates:
        return Baseline({}, [])
    if len(candidates) == 1:
        return Baseline({f"transformers {candidates[0]}": prepare(candidates[0])}, candidates)

    def timed(candidate: str) -> tuple[float, str, Callable[[], None]]:
        run = prepare(candidate)
        run()
        start = time.perf_counter()
        run()
        return time.perf_counter() - start, candidate, run

    best: tuple[float, str, Callable[[], None]] = (float("inf"), "", lambda: None)
    ran: list[str] = []
    display = Display()
    import torch

    for candidate in candidates:
        display.progress(None, f"warming up transformers {candidate}")
        try:
            best = min(
                best, timed(candidate), key=lambda x: x[0]
            )  # only the fastest stays in memory
            ran.append(candidate)
        except Exception as error:  # one that cannot run here must not end the comparison
            print(f"transformers {candidate} left out: {type(error).__name__}: {error}")
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
    display.close()
    if not ran:
        raise InputError(
            f"PyTorch can run this in none of these ways: {', '.join(candidates)} (why is "
            "above); if memory is short: fewer --documents, or shorter rows"
        )
    return Baseline({f"transformers {best[1]}": best[2]}, ran)
