# SPDX-License-Identifier: Apache-2.0
"""The embedded notes: reproducible, coherent, learnable; their tokenizer; their shards."""

import hashlib
import json
import re
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np
import pytest

from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.synthetic import (
    DEMO_CLOZES,
    Note,
    prepare_synthetic,
    synthetic_notes,
    train_tokenizer,
)
from bcmb_jax.data.synthetic.patients import draw_patient
from bcmb_jax.data.synthetic.words import (
    CONDITIONS,
    DRUGS,
    LABS,
    MODALITIES,
    PROBLEMS,
    SYSTEMS,
)
from bcmb_jax.data.tokenize import load_tokenizer
from bcmb_jax.errors import InputError

SEED = 5
NOTES_SHA256 = "f8e91a3bb42010b6513520cecbde73446d8f1f58eff854318ef0511faafc6054"
VOCABULARY = 2048
CLOZES = (  # the answer, and where in the notes it is learned
    (" woman", r"(?:Mrs|Ms)\. \w+ is an? \d+ year old( \w+)"),
    (" embolism", r"-sided pulmonary( \w+)"),
    (" apixaban", r"home( \w+) 5 mg PO BID"),
    (" mcg", r"levothyroxine 75( \w+)"),
    (" infarct", r"cerebral artery( \w+)\."),
    (" He", r"heart failure\.( \w+) was"),
)


@pytest.fixture(scope="module")
def notes() -> list[Note]:
    return list(synthetic_notes(1000, SEED))


@pytest.fixture(scope="module")
def tokenizer_folder(notes: list[Note], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("synthetic") / "tokenizer"
    train_tokenizer((note.text for note in notes), VOCABULARY, folder)
    return folder


def _by_patient(notes: list[Note]) -> dict[int, str]:
    texts: dict[int, str] = defaultdict(str)
    for note in notes:
        texts[int(note.patient.rsplit("-", 1)[1])] += note.text
    return texts


# The notes


def test_notes_are_the_same_bytes_everywhere(notes: list[Note]) -> None:
    joined = "\0".join(field for note in notes[:200] for field in note)
    assert hashlib.sha256(joined.encode()).hexdigest() == NOTES_SHA256, (
        "the notes have changed: if you meant to change them, put the new digest in NOTES_SHA256; "
        "if only Python or the machine is another, they no longer reproduce"
    )


def test_a_note_depends_on_seed_and_number_only(notes: list[Note]) -> None:
    assert list(synthetic_notes(30, SEED)) == notes[:30]
    others = list(synthetic_notes(30, SEED + 1))
    assert not {note.text for note in others} & {note.text for note in notes}
    assert not {note.patient for note in others} & {note.patient for note in notes}


def test_kinds_and_lengths_vary(notes: list[Note]) -> None:
    lengths = sorted(len(note.text.split()) for note in notes)
    assert len({note.kind for note in notes}) == 8
    assert lengths[0] < 40 < lengths[100] < 100
    assert 250 < lengths[500] < 500
    assert lengths[-1] > 2500, "a heavy tail"
    assert lengths[900] < 1200, "but only a tail"
    assert len({note.text for note in notes}) == len(notes)


def test_no_phrase_is_left_unfinished(notes: list[Note]) -> None:
    for note in notes:
        wrong = re.search(r"[\[\]{}|]|\.\.| ,| \.|[^ ]  [^ S]|None\.|\n\n\n| \n", note.text)
        assert not wrong, f"{note.kind} of {note.patient}: {wrong}"


def test_notes_of_a_patient_agree(notes: list[Note]) -> None:
    shared = 0
    for number, text in _by_patient(notes).items():
        patient = draw_patient(SEED, number)
        shared += text.count("MRN") > 1
        assert patient.facts["mrn"] in text
        assert f"{patient.facts['first']} " in f"{text} {patient.facts['first']} "
        wrong = ("he", "his", "him") if patient.facts["sex"] == "F" else ("she", "her")
        assert not re.search(rf"\b({'|'.join(wrong)})\b", text, re.IGNORECASE), patient.identifier
        ages = re.findall(r"\b(\d+)(?:-year-old| year old| y/o|yo)", text)
        assert set(ages) <= {str(patient.age)}
        if "{other}" not in str(patient.problem):
            assert f" {patient.facts['other']} " not in _without_fixed_words(text), (
                patient.identifier
            )
    assert shared > 100


def _without_fixed_words(text: str) -> str:
    """The text without anatomy that has one side in everyone."""
    fixed = r"[Tt]he (left|right) (ventricle|atrium)|right (heart|lower quadrant|upper quadrant)"
    fixed += r"|(left|right) (ventricular|atrial|anterior|hydronephrosis)"
    return re.sub(fixed, "", text)


def test_a_drug_keeps_its_dose_and_allergies_are_heeded(notes: list[Note]) -> None:
    seen = Counter[str]()
    for number, text in _by_patient(notes).items():
        patient = draw_patient(SEED, number)
        orders = [*patient.home, *patient.treatment, *patient.discharge]
        doses = defaultdict(set)
        for order in orders:
            doses[order.drug].add(order.dose)
        for drug, known in doses.items():
            said = set(re.findall(rf"(?<![\w-]){drug} ([\d.-]+ [\w/]+)", text))
            assert said <= known, f"{patient.identifier}: {drug} {said - known}"
            seen[drug] += len(said)
        for allergy in patient.allergies:
            substance = allergy.split(" > ")[0]
            assert substance not in doses
            assert substance != "penicillin" or not any("cillin" in drug for drug in doses)
    assert sum(count > 0 for count in seen.values()) > 60


def test_laboratory_values_start_where_the_problem_says_and_recover() -> None:
    for number in range(300):
        patient = draw_patient(SEED, number)
        for name, direction in patient.problem.labs.items():
            lab, values = LABS[name], [float(value) for value in patient.labs[name]]
            assert len(values) == patient.days + 1
            low, high = lab.normal
            assert values[0] > high if direction == "high" else values[0] < low, name
            tolerance = 0.11 * (high - low) + 10**-lab.decimals
            assert low - tolerance <= values[-1] <= high + tolerance, name


def test_the_tables_know_every_name_they_use() -> None:
    drugs = [drug for c in CONDITIONS.values() for drug in c.drugs]
    for problem in PROBLEMS:
        drugs += [*problem.treatment, *problem.home]
        assert not problem.background or problem.background in CONDITIONS
        assert problem.system in SYSTEMS
        assert set(problem.labs) <= set(LABS)
        for modality, finding, impression in problem.imaging:
            assert modality in MODALITIES
            assert finding
            assert impression
        assert bool(problem.procedure) == bool(problem.operation)
    assert set(drugs) == set(DRUGS), "a drug without a row, or a row that nothing uses"


@pytest.mark.slow
def test_context_tells_far_more_than_single_tokens(
    notes: list[Note], tokenizer_folder: Path
) -> None:
    """Two tokens of context on held-out patients: under a third of the unigram entropy."""
    tokens = load_tokenizer(str(tokenizer_folder)).encode_batch([note.text for note in notes])
    cut = next(i for i, note in enumerate(notes) if note.patient == f"P{SEED}-000350")
    train, test = np.concatenate(tokens[:cut]).tolist(), np.concatenate(tokens[cut:]).tolist()
    grams = [Counter(zip(*(train[i:] for i in range(n)), strict=False)) for n in (1, 2, 3)]
    loss = np.zeros(3)
    for i in range(2, len(test)):
        probability = 1 / VOCABULARY
        for n in range(3):
            context = tuple(test[i - n : i])
            seen = grams[n - 1][context] if n else len(train)
            count = grams[n][(*context, test[i])]
            probability = (count + 4 * probability) / (seen + 4)
            loss[n] -= np.log(probability)
    unigram, _, trigram = loss / (len(test) - 2)
    assert unigram > 5
    assert trigram < unigram / 3


# The tokenizer


def test_tokenizer_has_exactly_the_vocabulary_and_loses_nothing(
    notes: list[Note], tokenizer_folder: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder))
    assert tokenizer.vocab_size == VOCABULARY
    special = tokenizer.special
    ids = [special.unk, special.cls, special.sep, special.pad, special.mask]
    assert ids == list(range(VOCABULARY - 5, VOCABULARY)), "in ModernBERT's order, after the pairs"
    texts = [notes[3].text, "naïve  µg\t≥ 12 \r\n心電図", " leading"]
    assert [tokenizer.decode(ids) for ids in tokenizer.encode_batch(texts)] == texts


def test_tokenizer_is_deterministic_and_filled_up(notes: list[Note], tmp_path: Path) -> None:
    texts = [note.text for note in notes[:20]]
    for name in ("one", "two"):
        train_tokenizer(texts, 6000, tmp_path / name)
    for file in sorted((tmp_path / "one").iterdir()):
        assert file.read_bytes() == (tmp_path / "two" / file.name).read_bytes(), file.name
    tokenizer = load_tokenizer(str(tmp_path / "one"))
    assert tokenizer.vocab_size == 6000
    unused = [i for i in range(6000) if tokenizer.token(i).startswith("[unused")]
    assert unused
    assert unused[0] == tokenizer.special.mask + 1
    assert unused[-1] == 5999
    assert sorted(tmp_path.iterdir()) == [tmp_path / "one", tmp_path / "two"]


def test_tokenizer_refuses_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vocabulary of 260 is too small: 261 are needed"):
        train_tokenizer(["text"], 260, tmp_path / "small")
    train_tokenizer(["text"], 261, tmp_path / "small")
    with pytest.raises(InputError, match="exists already"):
        train_tokenizer(["text"], 261, tmp_path / "small")


def test_transformers_reads_the_tokenizer_as_we_do(
    notes: list[Note], tokenizer_folder: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(str(tokenizer_folder))
    ours = load_tokenizer(str(tokenizer_folder))
    text = notes[7].text
    encoded = theirs(text)
    assert set(encoded) == {"input_ids", "attention_mask"}
    inside = ours.encode_batch([text])[0].tolist()
    assert encoded["input_ids"] == [ours.special.cls, *inside, ours.special.sep]
    assert (theirs.mask_token_id, theirs.pad_token_id) == (ours.special.mask, ours.special.pad)
    assert (len(theirs), theirs.model_max_length) == (VOCABULARY, 8192)
    pair = theirs("a", "b")["input_ids"]
    assert pair.count(ours.special.cls) == 1
    assert pair.count(ours.special.sep) == 2
    absorbed = theirs.convert_ids_to_tokens(theirs(" has [MASK] pain")["input_ids"])
    assert absorbed[-4:] == ["Ġhas", "[MASK]", "Ġpain", "[SEP]"], "the mask takes the space before"


def test_a_cloze_asks_for_one_token_that_the_notes_teach(
    notes: list[Note], tokenizer_folder: Path
) -> None:
    tokenizer = load_tokenizer(str(tokenizer_folder))
    corpus = " ".join(note.text for note in notes)
    for cloze, (answer, taught) in zip(DEMO_CLOZES, CLOZES, strict=True):
        assert cloze.count(" [MASK]") == 1
        assert len(tokenizer.encode_batch([answer])[0]) == 1, answer
        assert re.search(taught, cloze.replace(" [MASK]", answer)), cloze
        fillers = Counter(re.findall(taught, corpus))
        assert answer in dict(fillers.most_common(3)), (cloze, fillers)


# The shards


def _prepare(folder: Path, **options: float) -> Path:
    chosen = {"notes": 60, "vocab_size": 300, "seed": 1, "validation_fraction": 0.2, **options}
    return prepare_synthetic(folder, **chosen)  # type: ignore[arg-type]


def _stamps(folder: Path) -> dict[str, int]:
    return {str(path): path.stat().st_mtime_ns for path in (folder, *folder.rglob("*"))}


def test_prepared_shards_hold_every_note_and_split_by_patient(tmp_path: Path) -> None:
    shards = _prepare(tmp_path / "made")
    assert shards == tmp_path / "made" / "shards"
    tokenizer = load_tokenizer(str(tmp_path / "made" / "tokenizer"))
    assert tokenizer.fingerprint == load_tokenizer(str(shards / "tokenizer")).fingerprint
    patients = {note.text: note.patient for note in synthetic_notes(60, 1)}
    found = {}
    for split_name in ("train", "validation"):
        opened = open_shards(shards / split_name)
        ids = [opened.read(i, 0, int(n)) for i, n in enumerate(opened.lengths)]
        found[split_name] = {tokenizer.decode(document) for document in ids}
    assert found["train"] | found["validation"] == set(patients)
    groups = [{patients[text] for text in texts} for texts in found.values()]
    assert groups[0]
    assert groups[1]
    assert not groups[0] & groups[1]
    assert list(tmp_path.iterdir()) == [tmp_path / "made"]


def test_what_is_there_is_used_again_and_other_options_replace_it(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    _prepare(folder)
    before = _stamps(tmp_path)
    _prepare(folder)
    assert _stamps(tmp_path) == before, "not even a temporary folder beside it"
    _prepare(folder, seed=2)
    after = _stamps(tmp_path)
    assert after.keys() == before.keys()
    assert after != before
    marker = json.loads((folder / "synthetic.json").read_text())
    assert marker["seed"] == 2
    (folder / "synthetic.json").write_text(json.dumps({**marker, "code": marker["code"][::-1]}))
    _prepare(folder, seed=2)
    assert json.loads((folder / "synthetic.json").read_text()) == marker


def test_a_folder_of_others_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(InputError, match="holds something other than synthetic notes"):
        _prepare(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_a_killed_run_leaves_nothing_that_is_used(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    code = "import sys; from bcmb_jax.data.synthetic import prepare_synthetic as p; "
    code += "p(sys.argv[1], notes=3000, vocab_size=2000, seed=1, validation_fraction=0.2)"
    run = subprocess.Popen(
        [sys.executable, "-c", code, str(folder)], cwd=Path(__file__).resolve().parents[2]
    )
    deadline = time.monotonic() + 60
    while not (left := list(tmp_path.iterdir())) and time.monotonic() < deadline:
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    assert run.wait() == -signal.SIGKILL
    assert left
    assert not folder.exists()
    assert open_shards(_prepare(folder) / "train").lengths.size
    assert list(tmp_path.iterdir()) == [folder], "what the killed run left is cleared"
