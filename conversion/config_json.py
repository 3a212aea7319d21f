# SPDX-License-Identifier: Apache-2.0
"""Read and write Hugging Face's config.json of a ModernBERT, in both dialects.

transformers 4 names thetas and the layer pattern one way (`global_rope_theta`, …), transformers 5
another (`rope_parameters`, `layer_types`), and neither says so when it ignores the other's keys. So
both are read, and both are written.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from bcmb_jax import agreements, files
from bcmb_jax.agreements import Agreements
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import Head
from conversion.mapping import MASKED_LM

TOKEN_IDS = {"cls": 50281, "sep": 50282, "pad": 50283}
"""The special tokens a config names, and transformers' defaults for them."""

# What ModernBERT may have in transformers and does not have here, nor in any published checkpoint:
# in the encoder, in every head, and in a masked LM alone.
REQUIRED = {
    "model_type": "modernbert",
    "attention_bias": False,
    "mlp_bias": False,
    "norm_bias": False,
    "rope_scaling": None,
}
HEADS = {"classifier_bias": False, "classifier_activation": "gelu"}
MASKED_LMS = {"decoder_bias": True, "tie_word_embeddings": True}
DIALECTS = ("global_attn_every_n_layers", "global_rope_theta", "local_rope_theta")
NOT_STORED = "attention_output_dropout"
SIZES = [x.name for x in dataclasses.fields(ModelConfig) if x.name not in (*DIALECTS, NOT_STORED)]
"""Fields of a model's config that both dialects name as we do."""
LAYER_TYPES = {"global": "full_attention", "local": "sliding_attention"}
ARCHITECTURES = {
    "masked_lm": "ModernBertForMaskedLM",
    "encoder": "ModernBertModel",
    "sequence_classification": "ModernBertForSequenceClassification",
    "token_classification": "ModernBertForTokenClassification",
}
"""transformers' class of each kind of head."""


class FolderConfig(NamedTuple):
    """The content of a folder's config.json.

    Attributes:
      token_ids: of special tokens by role; None where it is outside the vocabulary.
      architecture: transformers' class, or "".
      labels: a classifier's, by index.
      pooling: a sequence classifier's; transformers' default is "cls".
      problem_type: a classifier's loss, or "".
      thresholds: of labels of which several may hold, or none.
      file: where all this stands.
      unlike_ours: keys of heads whose values do not exist here.
      agreements: those of the data behind the weights.
    """

    config: ModelConfig
    token_ids: dict[str, int | None]
    architecture: str
    labels: tuple[str, ...]
    pooling: str
    problem_type: str = ""
    file: str = ""
    unlike_ours: Mapping[str, object] = {}
    agreements: Agreements = ()
    thresholds: tuple[float, ...] = ()

    def check_head(self, kind: str) -> None:
        """Raise `InputError` where a head of this kind would not be as it is here."""
        keys = {} if kind == "encoder" else HEADS | (MASKED_LMS if kind == "masked_lm" else {})
        for key in self.unlike_ours.keys() & keys:
            raise _unlike_ours(self.file, key, self.unlike_ours[key], keys[key])

    def head(self, stored: Mapping[str, np.ndarray], origin: str) -> Head:
        """Return the head that tensors of these names have (`model.` in front of the encoder's).

        Raises:
          InputError: a classifier that does not exist here, or a head with other parts.
        """
        head = self._head(stored, origin)
        self.check_head(head.kind)
        return head

    def _head(self, stored: Mapping[str, np.ndarray], origin: str) -> Head:
        classifier = stored.get("classifier.weight")
        if classifier is None:
            has_head = any(name.startswith(("head.", "decoder.")) for name in stored)
            return Head("masked_lm" if has_head else "encoder", pooling=self.pooling)
        kinds = {name: kind for kind, name in ARCHITECTURES.items() if "classification" in kind}
        if self.architecture not in kinds:
            raise InputError(
                f"{origin} has a classifier and its architecture is {self.architecture!r}; only "
                f"{', '.join(kinds)} exist here"
            )
        labels = self.labels or default_labels(classifier.shape[0])
        kind = kinds[self.architecture]
        return Head(kind, labels, self.pooling, self.problem_type, self.thresholds)


def default_labels(number: int) -> tuple[str, ...]:
    """Return the names that transformers gives to labels without one."""
    return tuple(f"LABEL_{i}" for i in range(number))


def read_config(directory: Path) -> FolderConfig:
    """Read a folder's config.json, in either dialect; unknown keys are ignored.

    Raises:
      InputError: it is not a ModernBERT, or one with parts that do not exist here.
    """
    file = directory / "config.json"
    return parse_config(read_json(file), str(file))


def parse_config(values: Mapping[str, Any], file: str) -> FolderConfig:
    """Return the content of a config.json from its keys and values; `file` names them in errors."""
    for key, only in REQUIRED.items():
        if values.get(key, only) != only or (key == "model_type" and key not in values):
            raise _unlike_ours(file, key, values.get(key), only)
    in_heads = HEADS | MASKED_LMS
    try:
        sizes = {key: values[key] for key in SIZES if key in values}
        for key, value in sizes.items():
            _check_type(key, value)
        if "sliding_window" in values:  # transformers 5's other word for it, of one side
            window = 2 * values["sliding_window"]
            if sizes.setdefault("local_attention", window) != window:
                raise InputError(
                    f"sliding_window is {values['sliding_window']} and local_attention "
                    f"{sizes['local_attention']}, not its double; remove the wrong one"
                )
        sizes |= {"global_attn_every_n_layers": _every(values), **_thetas(values)}
        config = ModelConfig(**sizes)
        token_ids = {role: _token_id(values, role, config.vocab_size) for role in TOKEN_IDS}
        labels, thresholds = _labels(values), _thresholds(values)
    except (InputError, TypeError, KeyError, AttributeError, ValueError) as error:
        raise InputError(f"{file}: {error}") from error
    return FolderConfig(
        config,
        token_ids,
        architecture=(values.get("architectures") or [""])[0],
        labels=labels,
        pooling=values.get("classifier_pooling", "cls"),
        problem_type=values.get("problem_type") or "",
        file=file,
        unlike_ours={k: values[k] for k, only in in_heads.items() if values.get(k, only) != only},
        agreements=agreements.parse(values.get(agreements.KEY, []), file),
        thresholds=thresholds,
    )


def config_json(
    config: ModelConfig,
    token_ids: Mapping[str, int | None],
    head: Head = MASKED_LM,
    dtype: str = "float32",
) -> dict[str, Any]:
    """Return config.json of a model for transformers 4.48 … 5.x."""
    ids = {role: token_ids.get(role) for role in TOKEN_IDS}
    thetas = {"global": config.global_rope_theta, "local": config.local_rope_theta}
    values = {
        "architectures": [ARCHITECTURES[head.kind]],
        **{key: only for key, only in REQUIRED.items() if only is not None},
        **HEADS,
        **MASKED_LMS,
        **{key: getattr(config, key) for key in SIZES},
        **{f"{role}_token_id": index for role, index in ids.items()},
        "bos_token_id": ids["cls"],
        "eos_token_id": ids["sep"],
        # Not our training dropout: theirs would drop attention weights too when fine-tuning.
        **{f"{part}_dropout": 0.0 for part in ("attention", "embedding", "mlp", "classifier")},
        "classifier_pooling": head.pooling,
        "initializer_range": 0.02,
        "initializer_cutoff_factor": 2.0,
        "torch_dtype": dtype,
        **{key: getattr(config, key) for key in DIALECTS},  # transformers 4
        # transformers 5
        "layer_types": [LAYER_TYPES[kind] for kind in config.layer_types],
        "rope_parameters": {
            LAYER_TYPES[kind]: {"rope_type": "default", "rope_theta": theta}
            for kind, theta in thetas.items()
        },
    }
    if head.labels:
        values["id2label"] = {str(i): label for i, label in enumerate(head.labels)}
        values["label2id"] = {label: i for i, label in enumerate(head.labels)}
    if head.problem_type:
        values["problem_type"] = head.problem_type
    if head.thresholds:
        values["label_thresholds"] = dict(zip(head.labels, head.thresholds, strict=True))
    return values


def _unlike_ours(file: str, key: str, value: object, only: object) -> InputError:
    return InputError(f"{file} has {key} {value!r}; only {only!r} exists here")


def _check_type(key: str, value: object) -> None:
    kind = type(getattr(ModelConfig, key))
    if type(value) is not kind and not (kind is float and type(value) is int):
        raise InputError(f"{key} is {value!r}; it must be {kind.__name__}")


def _token_id(values: Mapping[str, Any], role: str, vocab_size: int) -> int | None:
    key = f"{role}_token_id"
    index = values.get(key, TOKEN_IDS[role])
    if index is not None and type(index) is not int:
        raise InputError(f"{key} is {index!r}; it must be one whole number, or null")
    return index if index is not None and 0 <= index < vocab_size else None


def _labels(values: Mapping[str, Any]) -> tuple[str, ...]:
    names = values.get("id2label") or {}
    if not isinstance(names, dict) or not all(str(key).isdecimal() for key in names):
        raise InputError('id2label is not an object of labels by number, from "0" on')
    return tuple(str(names[key]) for key in sorted(names, key=int))


def _thresholds(values: Mapping[str, Any]) -> tuple[float, ...]:
    given = values.get("label_thresholds") or {}
    if not isinstance(given, dict) or not all(0 <= x <= 1 for x in given.values()):
        raise InputError("label_thresholds is not an object of numbers from 0 to 1 by label")
    return tuple(float(given[label]) for label in _labels(values)) if given else ()


def _every(values: Mapping[str, Any]) -> int:
    """Return the distance between global layers, from either dialect."""
    kinds = values.get("layer_types")
    if kinds is None:
        return int(values.get("global_attn_every_n_layers", ModelConfig.global_attn_every_n_layers))
    later = [i for i, kind in enumerate(kinds) if i and kind == LAYER_TYPES["global"]]
    every: int = values.get("global_attn_every_n_layers", min(later, default=max(len(kinds), 1)))
    layers = values.get("num_hidden_layers", len(kinds))
    expected = [LAYER_TYPES["local" if i % every else "global"] for i in range(len(kinds))]
    if kinds != expected or len(kinds) != layers:
        raise InputError(
            f"layer_types is not a full_attention layer every {every} of {layers} layers; only "
            "such patterns exist here"
        )
    return every


def _thetas(values: Mapping[str, Any]) -> dict[str, float]:
    thetas = {}
    parameters = {} if values.get("rope_parameters") is None else values["rope_parameters"]
    names = list(LAYER_TYPES.values())
    if not isinstance(parameters, dict) or not all(
        key in names and isinstance(rope, dict) for key, rope in parameters.items()
    ):
        raise InputError(
            f"rope_parameters must hold an object for {' and one for '.join(names)}, and nothing "
            "else: as it is, transformers 5 refuses it and 4 does not look at it"
        )
    for kind, name in LAYER_TYPES.items():
        key = f"{kind}_rope_theta"
        rope = parameters.get(name, {})
        rope_type = rope.get("rope_type", rope.get("type", "default"))
        if rope_type != "default":
            raise InputError(
                f"rope_parameters.{name}.rope_type is {rope_type!r}; only 'default' exists"
            )
        given = [x for x in (rope.get("rope_theta"), values.get(key)) if x is not None]
        if len(set(given)) > 1:
            raise InputError(
                f"rope_parameters.{name}.rope_theta is {given[0]} and {key} {given[1]}; "
                "transformers 5 reads the first and 4 the second; remove the wrong one"
            )
        if given:
            thetas[key] = float(given[0])
    if "local_rope_theta" in values and values["local_rope_theta"] is None:
        # transformers 4: "as in global layers"
        thetas.setdefault("local_rope_theta", thetas.get("global_rope_theta", 160_000.0))
    return thetas


def read_json(file: Path) -> Any:
    """Return the value that a JSON file of a model's folder holds.

    Raises:
      InputError: there is no such file, or it is not JSON.
    """
    try:
        return files.read_json(file)
    except FileNotFoundError:
        raise InputError(f"{file.parent} has no {file.name}; it is not a model's folder") from None
    except ValueError as error:
        raise InputError(f"{file} is not JSON: {error}") from error
