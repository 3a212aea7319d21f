# SPDX-License-Identifier: Apache-2.0
"""The record of licences and data use agreements, which bind a model as they bind its data.

It travels with the weights: in checkpoints, in config.json and in Composer's state (under `KEY`),
in manifests and model cards. Each step adds to it, and none takes anything out.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any

from bcmb_jax.errors import InputError
from bcmb_jax.sharing import shared_path

KEY = "data_agreements"
"""Name of the record in config.json, which transformers keeps, and in Composer's state."""
NOT_STATED = "not stated"
LONGEST, MOST = 4_000, 10_000
"""Characters of a text and entries of a record, beyond which a file holds something else."""
SHOWN, LISTED = 100, 8
"""Characters of a text and entries of a record that a message shows."""


@dataclass(frozen=True)
class Agreement:
    """The agreement under which one source of training data was used.

    Attributes:
      source: name of the data, or of a model of whose data nothing is known.
      license: licence or data use agreement, in one line; "none needed" is one, `NOT_STATED` none.
      tokens: how many the source has; None where they were not counted.
      canaries: how many made-up sentences were planted in it to measure memorization.
    """

    source: str
    license: str = NOT_STATED
    tokens: int | None = None
    canaries: int = 0

    def __post_init__(self) -> None:
        for name in ("source", "license"):
            printable = "".join(c if c.isprintable() else " " for c in getattr(self, name))
            object.__setattr__(self, name, " ".join(printable.split()))
        object.__setattr__(self, "license", self.license or NOT_STATED)


Agreements = tuple[Agreement, ...]


def merge(*records: Iterable[Agreement]) -> Agreements:
    """Return the entries of all records in their order, equal ones once."""
    return tuple(dict.fromkeys(chain(*records)))


def state(record: Agreements, license: str) -> Agreements:
    """Enter `license` wherever none is stated; an empty text changes nothing."""
    return merge(x if x.license != NOT_STATED else replace(x, license=license) for x in record)


def of_data(data: Mapping[str, Mapping[str, Any]], origin: str) -> Agreements:
    """Return the entries of prepared data, given as source → its `license` and `tokens`.

    Raises:
      InputError: the values are of other types; `origin` names their file.
    """
    return parse(
        [
            {
                "source": name,
                "license": x.get("license") or "",
                "tokens": x.get("tokens"),
                "canaries": x.get("canaries", 0),
            }
            for name, x in data.items()
        ],
        origin,
    )


def of_checkpoint(meta: Mapping[str, Any]) -> Agreements:
    """Return the agreements of all data behind a checkpoint, as its metadata tell them.

    Before there was such a record, metadata told those of the run's own data. What it had started
    from is then a source whose agreement is not stated.

    Raises:
      InputError: the record is malformed.
    """
    if "agreements" in meta["progress"]:
        return parse(meta["progress"]["agreements"], "the checkpoint")
    start = meta.get("config", {}).get("init_from")
    before = [Agreement(shared_path(start))] if start else []
    return merge(before, of_data(meta.get("data", {}), "the checkpoint"))


def to_json(record: Agreements) -> list[dict[str, Any]]:
    """Return a record as JSON values; canaries only of sources that have some."""
    always = ("source", "license", "tokens")
    return [{k: v for k, v in asdict(x).items() if v or k in always} for x in record]


def parse(values: object, origin: str) -> Agreements:
    """Return the record that JSON values hold.

    Raises:
      InputError: they hold something else; `origin` names their file.
    """
    if not isinstance(values, list) or len(values) > MOST:
        raise InputError(f"{origin}: {KEY} is not a list of at most {MOST:,} entries")
    return merge(_entry(value, f"{origin}: {KEY}[{i}]") for i, value in enumerate(values))


def _entry(value: object, origin: str) -> Agreement:
    match value:
        case {
            "source": str(source),
            "license": str(license),
            "tokens": int() | None as tokens,
            **rest,
        }:
            canaries = rest.get("canaries", 0)
            if max(len(source), len(license)) <= LONGEST and isinstance(canaries, int):
                return Agreement(source, license, tokens, canaries)
    raise InputError(
        f"{origin} is not a source with its license (at most {LONGEST:,} characters) and tokens"
    )


def describe(record: Agreements) -> str:
    """Return a line that names the agreements, and asks for those that are not stated."""
    stated = [f"{x.source} ({x.license})" for x in record if x.license != NOT_STATED]
    missing = [x.source for x in record if x.license == NOT_STATED]
    parts = [f"agreements of the data behind these weights: {_some(stated)}"] if stated else []
    if missing:
        parts.append(
            "no licence or data use agreement is on record for the data of "
            f'{_some(missing)}: state it with --license TEXT ("none needed" is an answer too)'
        )
    return "; ".join(parts)


def _some(texts: list[str]) -> str:
    shown = [x if len(x) <= SHOWN else f"{x[:SHOWN]}…" for x in texts[:LISTED]]
    more = len(texts) - LISTED
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
