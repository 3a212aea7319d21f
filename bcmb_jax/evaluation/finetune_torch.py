# SPDX-License-Identifier: Apache-2.0
"""Fine-tune any encoder of transformers in PyTorch: BERT, RoBERTa, BigBird, Longformer, ModernBERT.

These are the baselines; batches, schedule and scores are those of the JAX models.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, SupportsFloat

import numpy as np

from bcmb_jax.evaluation.encode import IGNORED, Encoded, as_labels
from bcmb_jax.evaluation.examples import Kind
from bcmb_jax.evaluation.finetune_jax import HEADS
from bcmb_jax.evaluation.protocol import Predicted, Settings
from conversion.torch_models import device, import_torch, load_model, run_model

if TYPE_CHECKING:
    import torch
    import transformers

PRECISION = {"cuda": "tf32", "cpu": "fp32"}
"""The precision of fine-tuning by device, upstream's."""


class TorchClassifier:
    """A model of transformers; a `protocol.Classifier`.

    Dropout is that of the model's config (ModernBERT has none, BERT 0.1), as upstream trains them.

    Args:
      name: one that `hub.locate` knows.

    Raises:
      InputError: PyTorch is missing, or transformers cannot load the model.
    """

    def __init__(self, name: str, kind: Kind, labels: tuple[str, ...], settings: Settings):
        self._source, self._kind, self._labels = name, kind, labels
        self._settings = settings
        self._model: transformers.PreTrainedModel
        self._optimizer: torch.optim.Optimizer

    def reset(self, seed: int) -> None:
        """Load the weights, draw a new classifier by `seed`, and start a fresh optimizer."""
        torch = import_torch("--backend torch")
        torch.manual_seed(seed)
        if precision() == "tf32":
            torch.set_float32_matmul_precision("high")
        self._model = load_model(
            self._source,
            HEADS[self._kind],
            # Names of labels, for readers of the model's config.
            id2label=dict(enumerate(self._labels)),
            label2id={name: i for i, name in enumerate(self._labels)},
        )
        self._model.to(device())
        groups = _groups(self._model, self._settings.weight_decay)
        self._optimizer = torch.optim.AdamW(groups, lr=0.0, betas=(0.9, 0.999), eps=1e-8)

    def step(self, examples: Sequence[Encoded], learning_rate: float) -> SupportsFloat:
        """Take one optimizer step and return the loss before it."""
        torch = import_torch()
        self._model.train()
        for group in self._optimizer.param_groups:
            group["lr"] = learning_rate
        loss = self._loss(examples)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._optimizer.zero_grad()
        return loss.detach()

    def predict(self, examples: Sequence[Encoded]) -> Predicted:
        """Predict the labels of examples, longest first so that batches have little padding."""
        torch = import_torch()
        self._model.eval()
        predicted: Predicted = [()] * len(examples)
        order = sorted(range(len(examples)), key=lambda i: -len(examples[i].tokens))
        size = self._settings.batch_size
        with torch.inference_mode():
            for first in range(0, len(order), size):
                chosen = order[first : first + size]
                logits = self._logits([examples[i] for i in chosen])
                choices = logits > 0 if self._kind == "multi_label" else logits.argmax(-1)
                for i, row in zip(chosen, choices.cpu().numpy(), strict=True):
                    predicted[i] = as_labels(self._kind, self._labels, row, examples[i])
        return predicted

    def snapshot(self) -> dict[str, np.ndarray]:
        """Copy the weights to the host."""
        state = self._model.state_dict().items()
        return {name: x.detach().cpu().numpy().copy() for name, x in state}

    def restore(self, snapshot: Mapping[str, np.ndarray]) -> None:
        """Put back the weights of a snapshot."""
        torch = import_torch()
        self._model.load_state_dict({name: torch.tensor(x) for name, x in snapshot.items()})

    def _logits(self, examples: Sequence[Encoded]) -> "torch.Tensor":
        ids = _filled([e.tokens for e in examples], self._model.config.pad_token_id or 0)
        mask = _filled([np.ones_like(e.tokens) for e in examples], 0)
        return run_model(self._model, {"input_ids": ids, "attention_mask": mask}).logits

    def _loss(self, examples: Sequence[Encoded]) -> "torch.Tensor":
        torch = import_torch()
        logits = self._logits(examples)
        stack = np.stack if self._kind != "tagging" else lambda x: _filled(x, IGNORED)
        targets = torch.from_numpy(stack([e.targets for e in examples])).to(device())
        if self._kind == "multi_label":
            return torch.nn.functional.binary_cross_entropy_with_logits(logits, targets)
        flat = logits.flatten(0, -2), targets.long().flatten()
        return torch.nn.functional.cross_entropy(*flat, ignore_index=IGNORED)


def precision() -> str:
    """Return the precision of fine-tuning: "tf32" on a GPU, as upstream's, else "fp32"."""
    return PRECISION[device()]


def read_encoder(name: str) -> tuple[dict[str, np.ndarray], "transformers.PretrainedConfig"]:
    """Return an encoder's weights by name, and its config.

    The pooler is left out: it is unused here, and drawn at random where a checkpoint has none.
    """
    encoder = load_model(name, "encoder")
    stored = encoder.state_dict().items()
    return {name: x.numpy() for name, x in stored if "pooler." not in name}, encoder.config


def _filled(rows: Sequence[np.ndarray], value: int) -> np.ndarray:
    """Pad rows to `[B, L]`, where L is the longest row."""
    filled = np.full((len(rows), max(map(len, rows))), value, np.int64)
    for row, x in zip(filled, rows, strict=True):
        row[: len(x)] = x
    return filled


def _groups(model: "transformers.PreTrainedModel", weight_decay: float) -> list[dict]:
    """Split parameters as upstream's Trainer does: layer norms and biases do not decay."""
    norms = {
        f"{name}.{kind}"
        for name, module in model.named_modules()
        if isinstance(module, import_torch().nn.LayerNorm)
        for kind, _ in module.named_parameters(recurse=False)
    }
    decayed: list[torch.nn.Parameter] = []
    free: list[torch.nn.Parameter] = []
    for name, parameter in model.named_parameters():
        (free if name in norms or "bias" in name else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": free, "weight_decay": 0.0},
    ]
