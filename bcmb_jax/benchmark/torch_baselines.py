# SPDX-License-Identifier: Apache-2.0
"""The baseline in PyTorch: transformers' ModernBERT on padded batches, by the fastest candidate.

A candidate is a way to run the model: an attention implementation, compiled or not. Weights are
random, of the same sizes. `fp32` means full fp32, TF32 is not used.
"""

import importlib.util
import math
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bcmb_jax.batch import Batch
from bcmb_jax.benchmark.timing import Setting
from bcmb_jax.errors import InputError, reason
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from bcmb_jax.terminal import Display
from conversion import torch_models

if TYPE_CHECKING:
    import torch

LabelledBatches = Sequence[tuple[Batch, np.ndarray | None]]
AUTOCAST = "+autocast"
"""Suffix of a candidate: bf16 as training mostly does it, from fp32 instead of bf16 weights."""
COMPILED = "+compile"


def candidates_here(case: str, precision: str) -> list[str]:
    """Return the candidates of a case ("inference", "training", "attention") on this machine.

    Raises:
      InputError: PyTorch is missing.
    """
    here = ["sdpa"] if case == "attention" else ["eager", "sdpa", "compile"]
    cuda = torch_models.import_torch("--compare torch").cuda.is_available()
    flash = importlib.util.find_spec("flash_attn")
    if cuda and precision == "bf16" and flash:
        # FlashAttention-4 alone leaves a folder of that name, without the code of 2.
        if flash.origin:
            here += ["flash_attention_2"]
        if flash.origin and case != "attention":
            here += ["flash_attention_2" + COMPILED]
        if case != "attention" and importlib.util.find_spec("packed_encoders"):
            here += ["packed_encoders"]
    if case == "training" and precision == "bf16":
        here += [candidate + AUTOCAST for candidate in here]
    return here


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
        batches: LabelledBatches,
        *,
        precision: str,
        candidate: str,
    ):
        import torch

        self._device = torch_models.device()
        autocast = candidate.endswith(AUTOCAST)
        candidate = candidate.removesuffix(AUTOCAST)
        self._casting = torch.autocast(self._device, torch.bfloat16, enabled=autocast)
        attention = candidate.removesuffix(COMPILED)
        model = torch_models.build_modernbert(
            config,
            head,
            attention=attention if attention in ("eager", "flash_attention_2") else "sdpa",
            sparse_prediction=True,  # the decoder at labelled positions only, as ours
        )
        bf16 = precision == "bf16" and not autocast
        self.model = model.to(self._device, torch.bfloat16 if bf16 else torch.float32)
        if candidate == "packed_encoders":  # looks for weights on a GPU
            import packed_encoders

            # Else it falls back to padded rows, without a word, where FlashAttention-4 is missing.
            packed_encoders.pack(self.model, attention_backend="flash")
        # As ours, for each shape: with dynamic ones it is slower.
        compiles = candidate.endswith("compile")
        self._run = torch.compile(self.model, dynamic=False) if compiles else self.model
        self._batches = [self._on_device(*batch) for batch in batches]
        self._optimizer: torch.optim.Optimizer | None = None

    def forward(self) -> None:
        """Compute hidden states or logits of every batch, in evaluation mode."""
        import torch

        self.model.eval()
        with torch.inference_mode(), self._casting:
            for inputs in self._batches:
                self._run(**inputs)
        wait()

    def step(self) -> None:
        """Take an AdamW step on every batch; dropout is 0, as on our side."""
        import torch

        if self._optimizer is None:
            self._optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-4, fused=True)
        self.model.train()
        for inputs in self._batches:
            with self._casting:
                loss = self._run(**inputs).loss
            loss.backward()
            self._optimizer.step()
            self._optimizer.zero_grad()
        wait()

    def _on_device(self, batch: Batch, labels: np.ndarray | None) -> dict[str, "torch.Tensor"]:
        import torch

        arrays = {"input_ids": batch.tokens}
        if (batch.segment_ids == 0).any():
            arrays["attention_mask"] = batch.segment_ids
        if labels is not None:
            arrays["labels"] = labels
        return {
            name: torch.from_numpy(x if x.dtype == np.float32 else x.astype(np.int64)).to(
                self._device
            )
            for name, x in arrays.items()
        }


def wait() -> None:
    """Wait until a GPU has done its work."""
    if torch_models.device() == "cuda":
        torch_models.import_torch().cuda.synchronize()


class Baseline(NamedTuple):
    """The fastest candidate.

    Attributes:
      run: for `time_interleaved`: its function by its name in results; empty if there is none.
      competed: the candidates that it was the fastest of.
    """

    run: dict[str, Callable[[], None]]
    competed: list[str]


def fastest_baseline(
    setting: Setting, head: Head, batches: LabelledBatches, *, train: bool
) -> Baseline:
    """Return the setting's candidate whose second call is the fastest; a single one is not called.

    A candidate that fails is reported and left out.

    Args:
      head, batches: as in `TorchBaseline`.
      train: time steps, else forward passes.

    Raises:
      InputError: none of them runs here.
    """
    fastest, least = Baseline({}, []), math.inf
    display = Display()
    for candidate in setting.candidates:
        display.progress(None, f"warming up transformers {candidate}")
        try:
            baseline = TorchBaseline(
                setting.config, head, batches, precision=setting.precision, candidate=candidate
            )
            run = baseline.step if train else baseline.forward
            seconds = _second_call(run) if len(setting.candidates) > 1 else 0.0
        except Exception as error:  # one that cannot run here must not end the comparison
            print(f"transformers {candidate} left out: {type(error).__name__}: {reason(error)}")
            continue
        fastest.competed.append(candidate)
        if seconds < least:
            fastest, least = fastest._replace(run={f"transformers {candidate}": run}), seconds
        del baseline, run  # only the fastest stays in memory
        torch_models.import_torch().cuda.empty_cache()
    display.close()
    if setting.candidates and not fastest.run:
        raise InputError(
            f"PyTorch can run this in none of these ways: {', '.join(setting.candidates)} (why is "
            "above); if memory is short: fewer --documents, or shorter rows"
        )
    return fastest


def _second_call(run: Callable[[], None]) -> float:
    run()
    start = time.perf_counter()
    run()
    return time.perf_counter() - start
