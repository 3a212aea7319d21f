# SPDX-License-Identifier: Apache-2.0
"""Identifiers cannot be searched for in what is prepared, and patients stay the same with a secret.

The attacker has one prepared note, all of this code, and tries every seven-digit record number.
"""

import json
import os
import time
from collections.abc import Iterable
from hashlib import blake2b, sha256
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax import commands
from bcmb_jax.data.clean import Cleaner, Cleaning, replace_placeholders
from bcmb_jax.data.clean.duplicates import Signer
from bcmb_jax.data.prepare import prepare
from bcmb_jax.data.secret import check_value, default_file, keyed_hash, read_secret
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError
from tests.fixtures.notes import documents, outcomes

PATIENT = 7_654_321
NEARBY = range(PATIENT - 9_000, PATIENT + 1_000)  # where the quick search looks
ALL_NUMBERS = range(10**7)
RECORD = "Medical Record Number 99"
NOTE = f"a [**Known lastname 1**] [**{RECORD}**] left the [**2151-7-16**] artery {{}}"
OTHER = "the left lung of [**Known lastname 1**] is clear, [**2151-8-2**] {}"
SECRETS = {"none": b"", "ours": b"o" * 32, "theirs": b"t" * 32}


def main(*arguments: str | Path) -> None:
    commands.main("prepare", *map(str, arguments))


def texts(output: Path) -> list[str]:
    """The prepared notes, decoded."""
    tokenizer, shards = load_tokenizer(str(output / "tokenizer")), open_shards(output / "train")
    return [
        tokenizer.decode(shards.read(i, 0, int(length))) for i, length in enumerate(shards.lengths)
    ]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, tiny_tokenizer) -> Path:
    """Two sources about nine patients, prepared with other seeds; the first without a secret too.

    `one`: a table; `two`: other notes of theirs as jsonl; `public`: `one` with no secret.
    """
    folder = tmp_path_factory.mktemp("prepared")
    people = [PATIENT, *range(1_000_001, 1_000_009)]
    rows = [f"{person},{NOTE.format(n)}" for n, person in enumerate(people)]
    (folder / "notes.csv").write_text("id,text\n" + "\n".join(rows) + "\n")
    lines = [
        json.dumps({"mrn": person, "text": OTHER.format(n)}) for n, person in enumerate(people)
    ]
    (folder / "notes.jsonl").write_text("\n".join(lines) + "\n")
    common = ["--tokenizer", tiny_tokenizer, "--placeholders", "surrogate", "--exact-duplicates"]
    common += ["--validation-fraction", "0"]
    table = ["--source", "csv", "--input", folder / "notes.csv", "--group-column", "id", *common]
    main(*table, "--output", folder / "one")
    main(*table, "--output", folder / "public", "--secret-file", "none")
    more = ["--source", "jsonl", "--input", folder / "notes.jsonl", "--group-column", "mrn"]
    main(*more, *common, "--output", folder / "two", "--seed", "5")
    return folder


def search(note: str, candidates: Iterable[int]) -> list[int]:
    """The record numbers whose surrogates, without a secret, are those of the note.

    Only the surrogate of the record number is computed for all, by the few lines that decide it.
    """
    shown = note.split()[2]
    found = []
    for candidate in candidates:
        drawn = blake2b(f"0\0{candidate}\0record\0{RECORD}number".encode(), digest_size=8).digest()
        if str(10**6 + int.from_bytes(drawn, "little") % 10**9 % (9 * 10**6)) == shown:
            found.append(candidate)
    template = NOTE.format(note.split()[-1])
    return [x for x in found if replace_placeholders(template, 0, str(x)) == note]


def note_of(output: Path) -> str:
    """The prepared note of `PATIENT`, whose last word is 0."""
    [note] = [text for text in texts(output) if text.endswith("artery 0")]
    return note


def test_a_search_finds_the_patient_only_where_there_is_no_secret(prepared: Path) -> None:
    assert search(note_of(prepared / "public"), NEARBY) == [PATIENT]
    note = note_of(prepared / "one")
    assert search(note, NEARBY) == []
    template = NOTE.format(0)
    # Nor does another secret help, though it is the right code and the right patient.
    for secret in (b"", *SECRETS.values()):
        assert replace_placeholders(template, 0, str(PATIENT), secret=secret) != note
    _, ours = read_secret(), default_file().read_bytes()
    assert replace_placeholders(template, 0, str(PATIENT), secret=ours) == note


@pytest.mark.slow
def test_a_search_over_all_record_numbers(prepared: Path) -> None:
    for name, expected in (("public", [PATIENT]), ("one", [])):
        start = time.monotonic()
        assert search(note_of(prepared / name), ALL_NUMBERS) == expected
        print(f"{name}: 10^7 record numbers in {time.monotonic() - start:.0f} s")


def test_a_patient_stays_the_same_in_other_sources_and_runs(prepared: Path) -> None:
    names = {text.split()[-1]: text.split()[1] for text in texts(prepared / "one")}
    others = {text.split()[-1]: text.split()[4] for text in texts(prepared / "two")}
    assert len(set(names.values())) > 5
    assert names == others, "the seed was another"


def test_the_order_of_the_input_cannot_be_rebuilt(prepared: Path) -> None:
    """Tables are often sorted by record number, so a note's place would tell much of it."""
    known_seed = np.random.Generator(np.random.PCG64(0)).permutation(9).tolist()
    orders = {
        name: [int(text.split()[-1]) for text in texts(prepared / name)]
        for name in ("public", "one")
    }
    assert orders["public"] == known_seed
    assert sorted(orders["one"]) == sorted(known_seed)
    assert orders["one"] != known_seed


def test_index_and_report_tell_secrets_apart_and_nothing_else(prepared: Path) -> None:
    secret = default_file().read_bytes()
    options = json.loads((prepared / "one/report.json").read_text())["options"]
    assert options["secret"] == check_value(secret)
    assert open_shards(prepared / "two/train").index["options"]["secret"] == check_value(secret)
    assert open_shards(prepared / "public/train").index["options"]["secret"] is None
    for file in (path for path in prepared.rglob("*") if path.is_file()):
        content = file.read_bytes()
        assert secret not in content
        assert secret.hex().encode() not in content


def sides(secret: bytes, tmp_path: Path, tokenizer: Path, seeds: Iterable[int]) -> list[bool]:
    """Whether the patient is in validation, in preparations that differ in their seed."""
    loaded = load_tokenizer(str(tokenizer))
    people = [str(PATIENT), *map(str, range(1_000_001, 1_000_010))]
    records = [documents("a" * (n + 1), group=person)[0] for n, person in enumerate(people)]
    found = []
    for seed in seeds:
        output = tmp_path / f"{check_value(secret)}-{seed}"
        options = {"validation_fraction": 0.5, "seed": seed, "secret": secret}
        prepare(records, loaded, output, source="notes", **options)
        lengths = open_shards(output / "validation").lengths
        first = loaded.encode_batch(["a"])[0]
        found.append(len(first) in lengths)
    return found


def test_the_split_does_not_tell_who_is_in_it(tmp_path, tiny_tokenizer) -> None:
    """Nine splits are nine bits: without a secret, one record number in 512 fits them."""
    seeds = range(9)

    def fitting(secret: bytes) -> list[int]:
        seen = sides(secret, tmp_path, tiny_tokenizer, seeds)
        return [
            candidate
            for candidate in NEARBY
            if all(
                (sha256(f"{seed}:{candidate}".encode()).digest()[0] < 128) == side
                for seed, side in zip(seeds, seen, strict=True)
            )
        ]

    found = fitting(b"")
    assert PATIENT in found
    assert len(found) < 40
    assert PATIENT not in fitting(SECRETS["ours"])


def save(folder: Path, cleaning: Cleaning, *notes: str) -> dict[str, np.ndarray]:
    """The arrays of `fingerprints.npz` of these notes."""
    folder.mkdir()
    cleaner = Cleaner(cleaning)
    list(cleaner.apply(documents(*notes)))
    cleaner.save(folder)
    with np.load(folder / "fingerprints.npz") as arrays:
        return dict(arrays)


def test_fingerprints_do_not_tell_the_number_in_a_short_note(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    sign = Signer().sign
    by_signature = range(PATIENT - 10, PATIENT + 10)

    def fitting(arrays: dict[str, np.ndarray]) -> tuple[list[int], list[int]]:
        digest, signature = arrays["digests"][0].tobytes(), arrays["signatures"][0]
        return [
            n for n in NEARBY if blake2b(f"MRN {n}".encode(), digest_size=16).digest() == digest
        ], [n for n in by_signature if np.array_equal(sign(f"MRN {n}"), signature)]

    for name in ("none", "ours"):
        secret = SECRETS[name]
        cleaning = Cleaning(near_duplicates=0.8, secret=secret)
        expected = [] if secret else [PATIENT]
        assert fitting(save(tmp_path / name, cleaning, f"MRN {PATIENT}")) == (expected, expected)


def test_sources_with_and_without_persons_are_compared(tmp_path: Path) -> None:
    pytest.importorskip("datasketch")
    ours = SECRETS["ours"]
    options = {"near_duplicates": 0.8}
    save(tmp_path / "persons", Cleaning(**options, secret=ours), "a note of words enough", "one")
    save(tmp_path / "public", Cleaning(**options), "an article of words enough", "two")

    def compare(*against: str, **secrets: bytes) -> list[str]:
        folders = [tmp_path / name for name in against]
        notes = ["A note of words enough", "an article of words enough", "one", "two", "three"]
        found = outcomes(Cleaning(**options, against=folders, **secrets), *notes)
        return [text for text in found if text in notes]

    for secret in (b"", ours):  # of the source that is compared
        assert compare("persons", "public", secret=secret, earlier_secret=ours) == ["three"]
    assert compare("persons", secret=ours) == ["an article of words enough", "two", "three"]
    for given in ({}, {"secret": SECRETS["theirs"]}, {"earlier_secret": SECRETS["theirs"]}):
        with pytest.raises(InputError, match=r"persons/fingerprints\.npz was made with another"):
            compare("public", "persons", **given)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder of configurations, without a secret."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    return tmp_path / "config"


def test_the_users_own_secret_is_made_once(home: Path, monkeypatch, capsys, tiny_tokenizer) -> None:
    notes = home.parent / "notes.csv"
    notes.write_text("text\n" + "".join(f"note {n}\n" for n in range(9)))
    arguments = ["--source", "csv", "--input", notes, "--tokenizer", tiny_tokenizer, "--overwrite"]
    said = []
    for _ in range(2):
        main(*arguments, "--output", home.parent / "out")
        said.append(capsys.readouterr().out.count(f"made the secret {home}/bcmb_jax/secret,"))
    assert said == [1, 0]
    file = home / "bcmb_jax" / "secret"
    assert (file.stat().st_mode & 0o777, file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert os.listdir(file.parent) == ["secret"]
    secret = file.read_bytes()
    assert len(secret) == 32
    assert read_secret() == (secret, False)
    file.unlink()
    assert read_secret()[0] != secret
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")  # to be ignored, as its specification says
    monkeypatch.setenv("HOME", str(home))
    assert default_file() == home / ".config" / "bcmb_jax" / "secret"


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        (b"", 0o600, "holds 0 bytes, 32 to 4,096 are needed"),
        (b"x" * 31, 0o600, r"holds 31 bytes.* head -c 32 /dev/urandom > .*mine"),
        (b"x" * 4097, 0o600, "holds more than 4,096 bytes"),
        (b"x" * 32, 0o644, r"is open to others \(mode 0644\): chmod 600 .*mine"),
        (b"x" * 32, 0o640, r"is open to others \(mode 0640\)"),
        (None, 0, r"does not exist: leave --secret-file out"),
    ],
)
def test_a_secret_that_is_none_is_refused(home: Path, content, mode, message) -> None:
    file = home.parent / "mine"
    if content is not None:
        file.write_bytes(content)
        file.chmod(mode)
    with pytest.raises(InputError, match=message) as caught:
        read_secret(file)
    assert "\n" not in str(caught.value)
    assert not home.exists()


def test_what_is_no_file_is_no_secret(home: Path) -> None:
    os.mkfifo(home.parent / "pipe", 0o600)
    (home.parent / "folder").mkdir(mode=0o700)
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match=f"{name} is not a file"):
            read_secret(home.parent / name)


def test_another_secret_does_not_go_on_with_what_is_there(
    tmp_path: Path, capsys, tiny_tokenizer
) -> None:
    (tmp_path / "RES0001.txt").write_text("D: How are you?")
    (tmp_path / "RES0002.txt").write_text("P: Well.")
    rows = "".join(f"a note {n}\n" for n in range(5))
    (tmp_path / "mtsamples.csv").write_text("transcription\n" + rows)
    for name in ("ours", "theirs"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(SECRETS[name])
    arguments = ["--source", "all", "--tokenizer", tiny_tokenizer, "--output", tmp_path / "out"]
    arguments += ["--input", f"respiratory-interviews={tmp_path}", f"mtsamples={tmp_path}"]
    main(*arguments, "--secret-file", tmp_path / "ours")
    main(*arguments, "--secret-file", tmp_path / "ours")
    for other in (tmp_path / "theirs", "none"):
        capsys.readouterr()
        with pytest.raises(InputError, match=r"mtsamples was prepared .*\(--secret-file was anoth"):
            main(*arguments, "--secret-file", other)
        assert "respiratory-interviews: kept as it is" in capsys.readouterr().out


def test_a_purpose_has_a_key_of_its_own() -> None:
    secret = SECRETS["ours"]
    hashes = {keyed_hash(secret, purpose, "x") for purpose in ("split", "surrogates", "digests")}
    assert len(hashes) == 3
    assert keyed_hash(b"", "split", "x") == keyed_hash(b"", "digests", "x") == sha256(b"x").digest()
    assert check_value(b"") is None
