# SPDX-License-Identifier: Apache-2.0
"""A model that reads strings."""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Literal, TypeAlias, overload

import jax.numpy as jnp
import numpy as np

from bcmb_jax.data.tokenize import Tokenizer
from bcmb_jax.device import target
from bcmb_jax.errors import InputError
from bcmb_jax.inference.entities import Entity, merge
from bcmb_jax.inference.packing import slots_in
from bcmb_jax.inference.program import Meter, Output, Program, Result
from bcmb_jax.inference.tokenizing import Text, TextTokenizer, in_chunks
from bcmb_jax.inference.windows import Window, cut, divide
from bcmb_jax.model.config import ModelConfig
from bcmb_jax.model.heads import POOLINGS, Head
from bcmb_jax.model.parameters import Parameters

CHARACTERS_AT_ONCE = {"cpu": 2**18, "gpu": 2**22}
"""Characters of texts that are packed together, by platform: about a minute's work on a CPU with a
base model, which is what a command that is killed has to do again."""
LEAST_TOP = 16  # tokens for a mask that are computed at least, so that few numbers are compiled

Aggregation: TypeAlias = Literal["first", "simple"]
Fillings: TypeAlias = list[tuple[str, float]]
"""Tokens for a mask and their probabilities, the most probable first."""


class TextModel:
    """Weights with a head and a tokenizer, as strings in and results out.

    A string gives one result, several strings a list. Texts that are longer than the model reads
    are cut into overlapping windows, and each of their tokens belongs to the window in which it is
    farthest from an edge (see `windows`): tags and masks are read there, vectors and logits of
    windows are averaged by the number of tokens that belong to them. Compiled programs are kept on
    disk (see `programs`); there are at most six for each method, whatever the texts are.

    Attributes:
      config: the model's sizes.
      params: checkpoint name → array.
      head: what sits on the encoder.
      origin: where the weights were read from.
      tokenizer_directory: the folder of its tokenizer, or None.
      dtype: of the operands of matrix products; parameters are float32 (float64 for float64).
      precision: "tf32" if a GPU may round float32 operands, "bf16" for that dtype, else "fp32".
    """

    def __init__(
        self,
        config: ModelConfig,
        params: Parameters,
        head: Head,
        *,
        origin: str,
        tokenizer_directory: Path | None,
        dtype: jnp.dtype,
        precision: str,
    ):
        self.config, self.params, self.head, self.origin = config, params, head, origin
        self.tokenizer_directory = tokenizer_directory
        self.dtype, self.precision = dtype, precision

    def __repr__(self) -> str:
        config, number = self.config, sum(math.prod(x.shape) for x in self.params.values())
        labels = f" ({', '.join(self.labels)})" if self.labels else ""
        return (
            f"<{self.head.kind}{labels}: {config.num_hidden_layers} layers of width "
            f"{config.hidden_size}, {number:,} parameters, {self.precision}, reads "
            f"{config.max_position_embeddings:,} tokens; from {self.origin}>"
        )

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of a classifier's outputs; empty without one."""
        return self.head.labels

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer of the model's folder; `InputError` if there is none."""
        return self._tokenizer.tokenizer

    @functools.cached_property
    def _tokenizer(self) -> TextTokenizer:
        if self.tokenizer_directory is None:
            raise InputError(
                f"{self.origin} has no tokenizer.json; put its tokenizer's files there"
            )
        return TextTokenizer(self.tokenizer_directory, self.config.vocab_size)

    @functools.cached_property
    def _program(self) -> Program:
        mask = self.tokenizer.special.mask
        return Program(self.config, self.head, self.params, self.dtype, self.precision, mask)

    def encode(
        self,
        texts: str | Iterable[str],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        progress: bool = False,
    ) -> np.ndarray:
        """Return the vector of a text `[D]`, or of each `[N, D]`, float32.

        Args:
          pooling: "mean" of all tokens' hidden states, special tokens included, or that of the
            first token ("cls").
          normalize: make each vector's length 1.
          progress: show how much is done on standard error.

        Raises:
          InputError: an unknown pooling, no tokenizer, or something that is not a string.
        """
        each = functools.partial(
            self.encode_each, pooling=pooling, normalize=normalize, progress=progress
        )
        if isinstance(texts, str):
            return next(each([texts]))
        vectors = [*each(texts)]
        return np.stack(vectors) if vectors else np.zeros((0, self.config.hidden_size), np.float32)

    def encode_each(
        self,
        texts: Iterable[str],
        pooling: str = "mean",
        *,
        normalize: bool = False,
        progress: bool = False,
    ) -> Iterator[np.ndarray]:
        """Yield the vector of each text, for more texts than fit into memory (see `encode`)."""
        if pooling not in POOLINGS:
            raise InputError(f"pooling {pooling!r} is not one of {', '.join(POOLINGS)}")
        output: Output = "cls" if pooling == "cls" else "mean"
        for _, windows, results in self._each(texts, output, self._tokenizer.plain, progress):
            vector = _average(windows, results)
            yield vector / max(float(np.linalg.norm(vector)), 1e-12) if normalize else vector

    @overload
    def classify(  # type: ignore[overload-overlap] # a str is an Iterable of them
        self, texts: str, *, progress: bool = ...
    ) -> dict[str, float]: ...
    @overload
    def classify(self, texts: Iterable[str], *, progress: bool = ...) -> list[dict[str, float]]: ...
    def classify(
        self, texts: str | Iterable[str], *, progress: bool = False
    ) -> dict[str, float] | list[dict[str, float]]:
        """Return the probability of every label of a text, or of each.

        They add up to 1, unless several labels may hold (the head's `problem_type`, or one label).

        Raises:
          InputError: the model is no sequence classifier, or as in `encode`.
        """
        each = functools.partial(self.classify_each, progress=progress)
        return next(each([texts])) if isinstance(texts, str) else [*each(texts)]

    def classify_each(
        self, texts: Iterable[str], *, progress: bool = False
    ) -> Iterator[dict[str, float]]:
        """Yield the probabilities of each text, for more than fit into memory (see `classify`)."""
        self._check_head("classify", "sequence_classification")
        several = self.head.problem_type.startswith("multi_label") or len(self.labels) == 1
        for _, windows, results in self._each(texts, "classes", self._tokenizer.plain, progress):
            logits = _average(windows, results).astype(float)
            odds = np.exp(logits - logits.max())
            probabilities = 1 / (1 + np.exp(-logits)) if several else odds / odds.sum()
            yield dict(zip(self.labels, probabilities.tolist(), strict=True))

    @overload
    def tag(  # type: ignore[overload-overlap] # a str is an Iterable of them
        self, texts: str, aggregation: Aggregation = ..., *, progress: bool = ...
    ) -> list[Entity]: ...
    @overload
    def tag(
        self, texts: Iterable[str], aggregation: Aggregation = ..., *, progress: bool = ...
    ) -> list[list[Entity]]: ...
    def tag(
        self,
        texts: str | Iterable[str],
        aggregation: Aggregation = "first",
        *,
        progress: bool = False,
    ) -> list[Entity] | list[list[Entity]]:
        """Return the entities of a text, or of each, in their order.

        Args:
          aggregation: "first" reads words as models are fine-tuned here: runs of letters and
            digits, or other single characters, each with a space before it; a word has the tag of
            its first token. "simple" reads the text as it stands, and every token has its own tag,
            for models that were trained so. See `entities.merge` for how tags make entities.
          progress: show how much is done on standard error.

        Raises:
          InputError: the model is no token classifier, an unknown aggregation, or as in `encode`.
        """
        each = functools.partial(self.tag_each, aggregation=aggregation, progress=progress)
        return next(each([texts])) if isinstance(texts, str) else [*each(texts)]

    def tag_each(
        self,
        texts: Iterable[str],
        aggregation: Aggregation = "first",
        *,
        progress: bool = False,
    ) -> Iterator[list[Entity]]:
        """Yield the entities of each text, for more texts than fit into memory (see `tag`)."""
        self._check_head("tag", "token_classification")
        if aggregation not in ("first", "simple"):
            raise InputError(f"aggregation {aggregation!r} is not 'first' or 'simple'")
        tokenizer = self._tokenizer
        tokenize = tokenizer.each_word if aggregation == "first" else tokenizer.each_token
        for text, _, results in self._each(texts, "tags", tokenize, progress):
            tags = np.concatenate([x for (x,) in results])[1:-1]  # without [CLS] and [SEP]
            yield merge(text.text, text.spans, tags[text.tokens], self.labels)

    @overload
    def fill_mask(  # type: ignore[overload-overlap] # a str is an Iterable of them
        self, texts: str, top: int = ..., *, progress: bool = ...
    ) -> Fillings | list[Fillings]: ...
    @overload
    def fill_mask(
        self, texts: Iterable[str], top: int = ..., *, progress: bool = ...
    ) -> list[Fillings | list[Fillings]]: ...
    def fill_mask(
        self, texts: str | Iterable[str], top: int = 5, *, progress: bool = False
    ) -> Fillings | list[Fillings] | list[Fillings | list[Fillings]]:
        """Return the most probable tokens for the mask of a text, or of each.

        A token at the beginning of a word has the space before it. A text with several masks gives
        a list with such a result for each of them.

        Args:
          top: how many tokens for a mask.
          progress: show how much is done on standard error.

        Raises:
          InputError: the model is no masked LM, a text has no mask, or as in `encode`.
        """
        each = functools.partial(self._fill_each, top=top, progress=progress)
        return next(each([texts])) if isinstance(texts, str) else [*each(texts)]

    def _fill_each(
        self, texts: Iterable[str], top: int, progress: bool
    ) -> Iterator[Fillings | list[Fillings]]:
        self._check_head("fill_mask", "masked_lm")
        if not 1 <= top <= self.config.vocab_size:
            raise InputError(f"top {top}: choose 1 to {self.config.vocab_size:,} tokens")
        computed = min(max(LEAST_TOP, 1 << (top - 1).bit_length()), self.config.vocab_size)
        mask = self.tokenizer.token(self.tokenizer.special.mask)
        outputs = self._each(texts, "masks", self._tokenizer.marked, progress, computed)
        for number, (_, _, results) in enumerate(outputs, 1):
            found = [
                [(self.tokenizer.decode([i]), float(p)) for i, p in zip(*both, strict=True)][:top]
                for ids, probabilities in results
                for both in zip(ids, probabilities, strict=True)
            ]
            if not found:
                raise InputError(f"text {number} has no {mask}; write one in it")
            yield found[0] if len(found) == 1 else found

    def _check_head(self, method: str, kind: str) -> None:
        if self.head.kind != kind:
            raise InputError(
                f"{method} needs a {kind} head, and this model has {self.head.kind}; load a model "
                f"that was trained with one, with head={kind!r}"
            )

    def _each(
        self,
        texts: Iterable[str],
        output: Output,
        tokenize: Callable[[list[str]], list[Text]],
        progress: bool,
        top: int = 0,
    ) -> Iterator[tuple[Text, list[Window], list[Result]]]:
        """Yield each text with its windows and their results."""
        program, special = self._program, self.tokenizer.special
        longest = self.config.max_position_embeddings
        meter = Meter(texts, progress)
        characters = CHARACTERS_AT_ONCE.get(target().platform, 2**22)
        for chunk in in_chunks(texts, characters, tokenize):
            windows = [cut(text.ids, special.cls, special.sep, longest) for text in chunk]
            if output == "masks":
                most = slots_in(min(longest, 128))
                windows = [
                    [part for window in x for part in divide(window, special.mask, most)]
                    for x in windows
                ]
            together = [window for x in windows for window in x]
            meter.begin(len(chunk), sum(len(window.tokens) for window in together))
            results = iter(program(together, output, top=top, done=meter.done))
            for text, own in zip(chunk, windows, strict=True):
                yield text, own, [next(results) for _ in own]
        meter.close()


def _average(windows: Sequence[Window], results: Sequence[Result]) -> np.ndarray:
    """Return the mean of windows' results by the tokens that each owns."""
    if len(windows) == 1:
        return results[0][0]
    owned = [window.stop - window.first for window in windows]
    return np.average([x for (x,) in results], 0, owned).astype(np.float32)
