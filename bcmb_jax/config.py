# SPDX-License-Identifier: Apache-2.0
"""The configuration of a run: checked, typed and frozen.

Users edit and override the ConfigDicts of `configs/`. The command line makes a `RunConfig` of one,
once; everything below the command line takes that, or a part of it. Fields are named like the keys
in `configs/base.py`, which says what each of them means.
"""

import ast
import difflib
import json
import re
import typing
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, TypeGuard, TypeVar

from bcmb_jax import schedule
from bcmb_jax.errors import InputError
from bcmb_jax.model.config import ModelConfig

FREE = {"decides_result": False}
"""Metadata of a key that may change between two parts of a run. Every other key decides the run's
result: to resume with another value of it is refused."""

LATER = {"added_later": True}
"""Metadata of a key that stored configurations of older versions lack; they get its default."""

Group = TypeVar("Group")  # a dataclass of keys

SCHEDULES = ("constant_with_warmup", "one_minus_sqrt", "warmup_stable_decay")


@dataclass(frozen=True)
class ScheduleConfig:
    """The course of the learning rate; lengths in tokens."""

    name: str
    warmup_tokens: int
    decay_tokens: int

    def __post_init__(self) -> None:
        if self.name not in SCHEDULES:
            raise InputError(f"schedule.name {self.name!r} is not one of {', '.join(SCHEDULES)}")

    def multiplier(self, tokens: int, max_tokens: int) -> float:
        """Return the factor of the learning rate after `tokens` of `max_tokens` tokens."""
        if self.name == "constant_with_warmup":
            return schedule.constant_with_warmup(tokens, warmup_tokens=self.warmup_tokens)
        decay = {"max_tokens": max_tokens, "decay_tokens": self.decay_tokens}
        if self.name == "one_minus_sqrt":
            return schedule.one_minus_sqrt(tokens, **decay)
        return schedule.warmup_stable_decay(tokens, warmup_tokens=self.warmup_tokens, **decay)

    def milestones(self, max_tokens: int) -> list[int]:
        """Return the token counts at which the rate changes course, and two inside the decay."""
        points = {0, max_tokens}
        if self.name != "one_minus_sqrt":
            points.add(self.warmup_tokens)
        if self.name != "constant_with_warmup":
            start = max_tokens - self.decay_tokens
            points |= {start, start + self.decay_tokens // 4, start + self.decay_tokens // 2}
        return sorted(points)


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """The folders of shards, their weights, and the rows that they are packed into.

    Folders may move between two parts of a run: their contents are compared instead.
    """

    train: tuple[str, ...] = field(metadata=FREE)
    validation: tuple[str, ...] = field(metadata=FREE)
    weights: tuple[float, ...]
    skip_rows: str = field(default="", metadata=FREE | LATER)
    row_length: int
    max_document_length: int

    def __post_init__(self) -> None:
        self.skipped_rows()

    def skipped_rows(self) -> list[range]:
        """Return the ranges of row numbers that `skip_rows` leaves out of training."""
        ranges = []
        for part in filter(None, self.skip_rows.replace(" ", "").split(",")):
            numbers = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
            if numbers is None:
                raise InputError(f"data.skip_rows has {part!r}; write ranges such as 40-47,96-103")
            first, last = int(numbers[1]), int(numbers[2] or numbers[1])
            ranges.append(range(first, last + 1))
        return ranges


@dataclass(frozen=True)
class MeshConfig:
    """The number of devices along each axis of the mesh."""

    data: int
    fsdp: int
    tensor: int


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Everything that a run is told; `from_dict` makes one from plain values.

    Raises:
      InputError: a value that training would only stumble over later.
    """

    # These decide the result. A resumed run compares them with the stored ones in this order.
    seed: int
    model: ModelConfig
    precision: str
    learning_rate: float
    weight_decay: float
    mask_rate: float
    train_rows_per_step: int
    schedule: ScheduleConfig
    data: DataConfig
    max_tokens: int
    # These do not, or are there to be changed when a run is in trouble.
    spike_deviations: float = field(default=0.0, metadata=FREE | LATER)
    tokenizer: str = field(metadata=FREE)
    init_from: str = field(metadata=FREE)
    rows_per_microbatch: int = field(metadata=FREE)
    remat: bool = field(metadata=FREE)
    attention: str = field(metadata=FREE)
    eval_every: int = field(metadata=FREE)
    eval_tokens: int = field(metadata=FREE)
    save_every: int = field(metadata=FREE)
    keep_checkpoints: int = field(metadata=FREE)
    log_every: int = field(metadata=FREE)
    hang_seconds: float = field(default=0.0, metadata=FREE | LATER)
    mesh: MeshConfig = field(metadata=FREE)

    def __post_init__(self) -> None:
        if not 0 < self.mask_rate < 1:
            raise InputError(f"mask_rate {self.mask_rate} is not between 0 and 1")
        if not 0 < self.learning_rate <= 1:
            raise InputError(f"learning_rate {self.learning_rate} is not between 0 and 1")
        if self.spike_deviations < 0:
            raise InputError(f"spike_deviations {self.spike_deviations} is negative; 0 is off")
        if self.hang_seconds < 0:
            raise InputError(f"hang_seconds {self.hang_seconds} is negative; 0 follows the steps")
        for key in ("max_tokens", "log_every", "keep_checkpoints", "eval_tokens"):
            if getattr(self, key) < 1:
                raise InputError(f"{key} is {getattr(self, key)}; it must be at least 1")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "RunConfig":
        """Make a configuration from the plain values of a ConfigDict or a stored `config.json`.

        Raises:
          InputError: a key is unknown or missing, or its value has another type.
        """
        return _build(cls, values, "")

    def as_dict(self) -> dict[str, Any]:
        """Return the plain values as JSON holds them, keys in alphabetical order."""
        values: dict[str, Any] = json.loads(json.dumps(asdict(self), sort_keys=True))
        return values

    def learning_rate_after(self, tokens: int) -> float:
        """Return the learning rate of the step that follows `tokens` tokens."""
        return self.learning_rate * self.schedule.multiplier(tokens, self.max_tokens)

    def microbatches(self, batch_shards: int) -> int:
        """Return the number of forward and backward passes of one step.

        Args:
          batch_shards: the number of devices that the rows of a step are split over.

        Raises:
          InputError: the rows do not divide over the devices, or over the microbatches.
        """
        rows = self.train_rows_per_step
        if rows < 1 or rows % batch_shards:
            nearest = max(1, -(-rows // batch_shards)) * batch_shards
            raise InputError(
                f"train_rows_per_step {rows} does not divide over {batch_shards} devices "
                f"(mesh.data x mesh.fsdp); the next that does is {nearest}"
            )
        on_device = rows // batch_shards
        at_once = min(self.rows_per_microbatch or on_device, on_device)
        if at_once < 1 or on_device % at_once:
            raise InputError(
                f"rows_per_microbatch {at_once} does not divide the {on_device} rows that each of "
                f"{batch_shards} devices has of train_rows_per_step {rows}"
            )
        return on_device // at_once


def decisive_values(values: Mapping[str, Any], kind: type = RunConfig) -> dict[str, Any]:
    """Return those of a configuration's plain values that decide the result of its run."""
    kinds, values = typing.get_type_hints(kind), _with_later_keys(kind, values)
    decisive: dict[str, Any] = {}
    for key in fields(kind):
        if key.name in values and key.metadata.get("decides_result", True):
            value = values[key.name]
            nested = _is_group(kinds[key.name])
            decisive[key.name] = decisive_values(value, kinds[key.name]) if nested else value
    return decisive


def check_key(key: str) -> None:
    """Refuse a dotted name that is not a key of a run.

    Raises:
      InputError: the message names the nearest key.
    """
    known = key_types()
    if key not in known:
        (nearest,) = difflib.get_close_matches(key, known, n=1, cutoff=0)
        raise InputError(
            f"there is no key config.{key}; the nearest is config.{nearest} (all are in "
            "configs/base.py)"
        )


def key_types() -> dict[str, object]:
    """Return the types of all keys by their dotted names."""
    return dict(_keys(RunConfig, ""))


def read_value(key: str, text: str) -> object:
    """Read the value of a key as the command line has it: a tuple in Python, or with commas.

    Raises:
      InputError: it has another type.
    """
    kind = key_types()[key]
    if typing.get_origin(kind) is not tuple:
        return _read(kind, text, key)
    if text[:1] not in tuple("([\"'"):
        (item, _), parts = typing.get_args(kind), text.split(",") if text else []
        return tuple(_read(item, part, key) for part in parts)
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError) as error:
        raise InputError(f"config.{key} is {text}; it must be {_description(kind)}") from error
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _read(kind: object, text: str, key: str) -> object:
    if kind is bool and text.lower() in ("true", "false", "1", "0"):
        return text.lower() in ("true", "1")
    if kind is not bool:
        with suppress(ValueError):
            return typing.cast(type, kind)(text)
    raise InputError(f"config.{key} is {text}; it must be {_description(kind)}")


def _is_group(kind: object) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind)


def _keys(kind: type, prefix: str) -> Iterator[tuple[str, object]]:
    for name, inner in typing.get_type_hints(kind).items():
        key = prefix + name
        yield from _keys(inner, f"{key}.") if _is_group(inner) else [(key, inner)]


def _with_later_keys(kind: type, values: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `values` with the defaults of keys that did not exist when older runs were stored."""
    later = {x.name: x.default for x in fields(kind) if x.metadata.get("added_later")}
    return {**later, **values}


def _build(kind: type[Group], values: Mapping[str, Any], prefix: str) -> Group:
    kinds, values = typing.get_type_hints(kind), _with_later_keys(kind, values)
    for name in values:
        if name not in kinds:
            check_key(prefix + name)
    for name in kinds:
        if name not in values:
            raise InputError(f"the configuration lacks the key {prefix}{name}")
    return kind(**{name: _checked(kinds[name], values[name], prefix + name) for name in kinds})


def _checked(kind: object, value: object, key: str) -> object:
    if typing.get_origin(kind) is tuple:
        if isinstance(value, list | tuple):
            item = typing.get_args(kind)[0]
            return tuple(_checked(item, x, f"{key}[{i}]") for i, x in enumerate(value))
    elif _is_group(kind):
        if isinstance(value, Mapping):
            return _build(kind, value, f"{key}.")
    elif kind is float and type(value) is int:
        return float(value)
    elif type(value) is kind:
        return value
    raise InputError(f"{key} is {value!r}; it must be {_description(kind)}")


def _description(kind: object) -> str:
    if typing.get_origin(kind) is tuple:
        return f"a tuple, each element {_description(typing.get_args(kind)[0])}"
    if _is_group(kind):
        return "a group of keys"
    names = {int: "a whole number", float: "a number", str: "a text", bool: "True or False"}
    return names[typing.cast(type, kind)]
