# SPDX-License-Identifier: Apache-2.0
"""Models to fine-tune on a task: weights from anywhere under a new classifier, and their export."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from bcmb_jax.device import compute_dtype
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation import finetune_torch
from bcmb_jax.evaluation.encode import TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.finetune_jax import HEADS, JaxClassifier
from bcmb_jax.evaluation.protocol import Classifier, Settings
from bcmb_jax.evaluation.sweep import fingerprint_of_weights
from bcmb_jax.model.heads import Head
from conversion.publish import publish
from conversion.weights import Weights, read
from conversion.writers import write_huggingface

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "tagging": "",
}


class Tunable(NamedTuple):
    """A model under a task's classifier.

    Attributes:
      facts: what identifies the weights and how they compute, JSON.
      width: of the encoder.
      save: `(folder, on_what)`: the weights as they are now, for transformers and for us; None if
        they are not ours.
    """

    classifier: Classifier
    tokenizer: TaskTokenizer
    facts: dict[str, Any]
    width: int
    save: Callable[[Path, str], None] | None = None


def ours(
    path_or_id: str,
    dataset: Dataset,
    settings: Settings,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    precision: str = "",
    random_weights: bool = False,
) -> Tunable:
    """A model that `conversion.weights.read` reads.

    Args:
      tokenizer: folder or hub id; None: the model's own.
      max_length: tokens of a text, longer ones are cut; None: all that the model reads.
      precision: "bf16", "fp32", or empty to let the device choose.
      random_weights: only the model's sizes are taken.

    Raises:
      InputError: there is no such model or tokenizer, or they do not fit each other or the task.
    """
    weights: Weights = read(path_or_id)
    folder = tokenizer or weights.tokenizer
    if folder is None:
        raise InputError(f"{path_or_id} has no tokenizer; give its folder as --tokenizer")
    head = Head(
        HEADS[dataset.kind],
        dataset.labels,
        weights.head.pooling,
        PROBLEM_TYPES[dataset.kind],
    )
    dtype = compute_dtype(precision)
    params = {} if random_weights else weights.params
    classifier = JaxClassifier(
        weights.config,
        head,
        params,
        kind=dataset.kind,
        dtype=dtype,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
    )

    def save(directory: Path, on_what: str) -> None:
        source = "random weights" if random_weights else weights.origin
        now = weights._replace(
            params=classifier.snapshot(),
            head=head,
            tokenizer=encoder.directory,
            origin=f"{source}, fine-tuned on {on_what}",
            opt_state=None,
        )
        publish(directory, lambda new: write_huggingface(now, new, directory.name), overwrite=True)

    positions = weights.config.max_position_embeddings
    encoder = _tokenizer(path_or_id, str(folder), max_length, positions, weights.config.vocab_size)
    facts: dict[str, Any] = {"model": fingerprint_of_weights(params), "precision": dtype.name}
    facts |= {"config": weights.config.as_dict(), "pooling": weights.head.pooling}
    return Tunable(classifier, encoder, facts, weights.config.hidden_size, save)


def theirs(
    path_or_id: str,
    dataset: Dataset,
    settings: Settings,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
) -> Tunable:
    """Any encoder of transformers, in PyTorch; as `ours`."""
    positions = finetune_torch.max_length(path_or_id)
    weights, config = finetune_torch.read_encoder(path_or_id)
    classifier = finetune_torch.TorchClassifier(
        path_or_id,
        kind=dataset.kind,
        labels=dataset.labels,
        batch_size=settings.batch_size,
        weight_decay=settings.weight_decay,
    )
    encoder = _tokenizer(
        path_or_id, tokenizer or path_or_id, max_length, positions, config.vocab_size
    )
    facts = {"model": fingerprint_of_weights(weights), "precision": "float32"}
    return Tunable(classifier, encoder, facts, config.hidden_size)


def _tokenizer(
    path_or_id: str, tokenizer: str, max_length: int | None, positions: int, vocab_size: int
) -> TaskTokenizer:
    if max_length and max_length > positions:
        raise InputError(
            f"--max-length {max_length} is more than the {positions} tokens that {path_or_id} reads"
        )
    found = TaskTokenizer(tokenizer, max_length or positions)
    if found.vocab_size > vocab_size:
        raise InputError(
            f"the tokenizer has {found.vocab_size:,} entries and the model {vocab_size:,}; "
            "give the one it was trained with"
        )
    return found
