# SPDX-License-Identifier: Apache-2.0
"""Load models to fine-tune: weights from anywhere under a new classifier, and how to save them."""

import contextlib
import dataclasses
import logging
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from bcmb_jax.agreements import Agreement, describe, merge
from bcmb_jax.device import PRECISIONS, resolve_precision, target
from bcmb_jax.errors import InputError
from bcmb_jax.evaluation.encode import TaskTokenizer
from bcmb_jax.evaluation.examples import Dataset
from bcmb_jax.evaluation.finetune_jax import HEADS, JaxClassifier
from bcmb_jax.evaluation.protocol import FineTuningModel, Settings
from bcmb_jax.files import write_json
from bcmb_jax.model.heads import Head
from conversion import torch_models
from conversion.export import new_model_folder, write_huggingface
from conversion.mapping import weights_fingerprint
from conversion.weights import read

log = logging.getLogger(__name__)

PROBLEM_TYPES = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "tagging": "",
}


def load_jax_classifier(
    name: str,
    dataset: Dataset,
    settings: Settings,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
    precision: str = "",
    random_weights: bool = False,
    agreement: Agreement | None = None,
    class_weights: Sequence[float] = (),
) -> FineTuningModel:
    """Load any model that `conversion.weights.read` reads, to be fine-tuned in JAX.

    Args:
      tokenizer: a name that `hub.locate` knows; None for the model's own.
      max_length: tokens of a text, longer ones are cut; None for all that the model reads.
      precision: a key of `device.PRECISIONS`; empty for that of the paper's protocol.
      random_weights: take only the sizes of the model.
      agreement: that of the dataset, which saved models keep with those of the model.
      class_weights: as in `JaxClassifier`.

    Raises:
      InputError: there is no such model or tokenizer, or they do not fit each other or the task.
    """
    weights = read(name)
    config, kind = weights.config, dataset.kind
    folder = tokenizer or weights.tokenizer
    if folder is None:
        raise InputError(f"{name} has no tokenizer; give its folder as --tokenizer")
    head = Head(HEADS[kind], dataset.labels, weights.head.pooling, PROBLEM_TYPES[kind])
    # Fidelity: upstream multiplies in TF32, and attention alone in bf16 where flash attention is
    # installed; here attention is in TF32 too. A CPU has no TF32, there as here.
    precision = resolve_precision(precision or ("tf32" if target().platform == "gpu" else "fp32"))
    params = {} if random_weights else weights.params
    classifier = JaxClassifier(
        config,
        head,
        params,
        kind=kind,
        precision=precision,
        settings=settings,
        class_weights=class_weights,
    )
    encoder = TaskTokenizer(str(folder), _length(name, max_length, config.max_position_embeddings))
    _check_vocabulary(encoder, config.vocab_size)

    def save(
        directory: Path,
        training: str,
        *,
        thresholds: tuple[float, ...] = (),
        results: Mapping[str, object] | None = None,
    ) -> None:
        source = "random weights" if random_weights else weights.origin
        now = weights._replace(
            params=classifier.snapshot(),
            head=dataclasses.replace(head, thresholds=thresholds),
            origin=f"{source}, fine-tuned on {training}",
            dtype="float32",  # as scored, whatever the source was stored in
            opt_state=None,
            agreements=merge(
                () if random_weights else weights.agreements, [agreement] if agreement else ()
            ),
        )
        with new_model_folder(directory, overwrite=True) as folder, _as_read(encoder) as read_here:
            write_huggingface(now._replace(tokenizer=read_here), folder, directory.name)
            if results:
                write_json(folder / "results.json", dict(results), indent=1)
        log.warning("%s: %s", directory, describe(now.agreements))

    metadata = {
        "model": weights_fingerprint(dict(sorted(params.items()))),
        "precision": PRECISIONS[precision],
        "config": config.as_dict(),
        "pooling": weights.head.pooling,
    }
    return FineTuningModel(classifier, encoder, metadata, config.hidden_size, save)


def load_torch_classifier(
    name: str,
    dataset: Dataset,
    settings: Settings,
    *,
    tokenizer: str | None = None,
    max_length: int | None = None,
) -> FineTuningModel:
    """Load any encoder of transformers, to be fine-tuned in PyTorch.

    Arguments and errors are those of `load_jax_classifier`.
    """
    from bcmb_jax.evaluation import finetune_torch

    positions = torch_models.max_length(name)
    weights, config = finetune_torch.read_encoder(name)
    classifier = finetune_torch.TorchClassifier(name, dataset.kind, dataset.labels, settings)
    encoder = TaskTokenizer(tokenizer or name, _length(name, max_length, positions))
    _check_vocabulary(encoder, config.vocab_size)
    metadata = {
        "model": weights_fingerprint(dict(sorted(weights.items()))),
        "precision": PRECISIONS[finetune_torch.precision()],
    }
    return FineTuningModel(classifier, encoder, metadata, config.hidden_size)


@contextlib.contextmanager
def _as_read(tokenizer: TaskTokenizer) -> Iterator[Path]:
    """Yield a folder of the tokenizer as fine-tuning has read texts with it."""
    with tempfile.TemporaryDirectory() as made:
        tokenizer.write(Path(made))
        yield Path(made)


def _length(name: str, wanted: int | None, positions: int) -> int:
    if wanted and wanted > positions:
        raise InputError(
            f"--max-length {wanted} is more than the {positions} tokens that {name} reads"
        )
    # Fidelity: upstream cuts at its tokenizer's model_max_length, or at 512 where that is 10,000 or
    # more; here at what the model reads, which for ModernBERT is the same.
    return wanted or positions


def _check_vocabulary(tokenizer: TaskTokenizer, vocab_size: int) -> None:
    if tokenizer.vocab_size > vocab_size:
        raise InputError(
            f"the tokenizer has {tokenizer.vocab_size:,} entries and the model {vocab_size:,}; "
            "give the one it was trained with"
        )
