# SPDX-License-Identifier: Apache-2.0
"""Load models to fine-tune: weights from anywhere under a new classifier, and how to save them."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax.device import compute_dtype
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import finetune_torch
from bcmb_jax.evaluation.encode import TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.finetune_jax import HEADS, JaxClassifier
from bcmb_jax.evaluation.protocol import Classifier, Settings
from bcmb_jax.model.heads import Head
from conversion import torch_models
from conversion.export import new_model_folder, write_huggingface
from conversion.weights import read, weights_fingerprint

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "tagging": "",
}


class FineTuningModel(NamedTuple):
    """A model with a classifier for a task.

    Attributes:
      metadata: what identifies the weights and how they compute; JSON.
      width: hidden size of the encoder.
      save: `(folder, description of the training)` writes the current weights as a Hugging Face
        folder; None for models of transformers.
    """

    classifier: Classifier
    tokenizer: TaskTokenizer
    metadata: dict[str, Any]
    width: int
    save: Callable[[Path, str], None] | None = None


def load_jax_classifier(
    path_or_id: str,
    dataset: Dataset,
    settings: Settings,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    precision: str = "",
    random_weights: bool = False,
) -> FineTuningModel:
    """Load any model that `conversion.weights.read` reads, to be fine-tuned in JAX.

    Args:
      tokenizer: folder or hub id; None for the model's own.
      max_length: tokens of a text, longer ones are cut; None for all that the model reads.
      precision: "bf16", "fp32", or empty to let the device choose.
      random_weights: take only the sizes of the model.

    Raises:
      InputError: there is no such model or tokenizer, or they do not fit each other or the task.
    """
    weights = read(path_or_id)
    folder = tokenizer or weights.tokenizer
    if folder is None:
        raise InputError(f"{path_or_id} has no tokenizer; give its folder as --tokenizer")
    kind = dataset.kind
    head = Head(HEADS[kind], dataset.labels, weights.head.pooling, PROBLEM_TYPES[kind])
    dtype = compute_dtype(precision)
    params = {} if random_weights else weights.params
    classifier = JaxClassifier(
        weights.config,
        head,
        params,
        kind=kind,
        dtype=dtype,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
    )
    encoder = _load_tokenizer(
        path_or_id,
        str(folder),
        max_length,
        positions=weights.config.max_position_embeddings,
        vocab_size=weights.config.vocab_size,
    )

    def save(directory: Path, training: str) -> None:
        source = "random weights" if random_weights else weights.origin
        now = weights._replace(
            params=classifier.snapshot(),
            head=head,
            tokenizer=encoder.directory,
            origin=f"{source}, fine-tuned on {training}",
            opt_state=None,
        )
        with new_model_folder(directory, overwrite=True) as folder:
            write_huggingface(now, folder, directory.name)

    metadata = {
        "model": _fingerprint(params),
        "precision": dtype.name,
        "config": weights.config.as_dict(),
        "pooling": weights.head.pooling,
    }
    return FineTuningModel(classifier, encoder, metadata, weights.config.hidden_size, save)


def load_torch_classifier(
    path_or_id: str,
    dataset: Dataset,
    settings: Settings,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
) -> FineTuningModel:
    """Load any encoder of transformers, to be fine-tuned in PyTorch.

    Arguments and errors are those of `load_jax_classifier`.
    """
    positions = torch_models.max_length(path_or_id)
    weights, config = finetune_torch.read_encoder(path_or_id)
    classifier = finetune_torch.TorchClassifier(
        path_or_id,
        kind=dataset.kind,
        labels=dataset.labels,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
    )
    encoder = _load_tokenizer(
        path_or_id,
        tokenizer or path_or_id,
        max_length,
        positions=positions,
        vocab_size=config.vocab_size,
    )
    metadata = {"model": _fingerprint(weights), "precision": "float32"}
    return FineTuningModel(classifier, encoder, metadata, config.hidden_size)


def _fingerprint(params: Mapping[str, np.ndarray]) -> str:
    """Return the fingerprint of weights, whatever the order they are in."""
    return weights_fingerprint(dict(sorted(params.items())))


def _load_tokenizer(
    path_or_id: str, folder: str, max_length: int | None, *, positions: int, vocab_size: int
) -> TaskTokenizer:
    if max_length and max_length > positions:
        raise InputError(
            f"--max-length {max_length} is more than the {positions} tokens that {path_or_id} reads"
        )
    tokenizer = TaskTokenizer(folder, max_length or positions)
    if tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size:,} entries and the model {vocab_size:,}; "
            "give the one it was trained with"
        )
    return tokenizer
