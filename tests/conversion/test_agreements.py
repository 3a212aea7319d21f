# SPDX-License-Identifier: Apache-2.0
"""Records of agreements in folders: read, completed, stated, and shown without markup of theirs."""

import json
import shutil

import pytest

import conversion
from bcmb_jax import commands
from bcmb_jax.agreements import (
    KEY,
    LONGEST,
    NOT_STATED,
    Agreement,
    describe,
    merge,
    of_checkpoint,
    of_data,
    parse,
    state,
    to_json,
)
from bcmb_jax.errors import InputError
from conversion.export import write_huggingface
from conversion.weights import read
from tests.fixtures.tiny_weights import edit_config

ALPHA, BETA = Agreement("alpha", "ALPHA 1.0", 320), Agreement("beta", "BETA")


@pytest.fixture
def public(folder):
    """A folder as other programs write it, without a record."""
    (folder / "manifest.json").unlink()
    (folder / "README.md").unlink()
    edit_config(folder, **{KEY: ...})
    return folder.rename(folder.with_name("public"))


def test_entries_are_one_line_and_equal_ones_stand_once() -> None:
    entry = Agreement("no\ntes", " DUA\t12\x1b ")
    assert (entry.source, entry.license) == ("no tes", "DUA 12")
    assert Agreement("notes", " \n").license == NOT_STATED
    later = Agreement("alpha", "ALPHA 2.0", 320)
    assert merge([ALPHA, BETA], [BETA, later, ALPHA]) == (ALPHA, BETA, later)
    record = (ALPHA, Agreement("notes", tokens=7))
    assert state(record, "DUA 12") == (ALPHA, Agreement("notes", "DUA 12", 7))
    assert state(record, "") == record


def test_planted_canaries_travel_with_the_record_and_stand_in_the_card(folder, tmp_path) -> None:
    data = {"notes": {"license": "DUA 12", "tokens": 5, "canaries": 20}, "more": {"tokens": 7}}
    record = of_data(data, "index.json")
    assert record == (Agreement("notes", "DUA 12", 5, 20), Agreement("more", tokens=7))
    assert [x.get("canaries") for x in to_json(record)] == [20, None]
    export = tmp_path / "export"
    export.mkdir()
    write_huggingface(read(folder)._replace(agreements=record), export)
    assert read(export).agreements == record
    page = (export / "README.md").read_text()
    assert "20 made-up sentences, called canaries, were planted in notes to measure" in page
    assert page.count("made-up sentences") == 1
    wrong = [{**to_json(record)[0], "canaries": "Bakelo"}]
    with pytest.raises(InputError, match="is not a source with its license") as error:
        parse(wrong, "config.json")
    assert "Bakelo" not in str(error.value)


def test_the_line_names_all_asks_for_the_missing_and_has_a_bound() -> None:
    assert describe((ALPHA, BETA)).endswith(": alpha (ALPHA 1.0), beta (BETA)")
    line = describe((ALPHA, Agreement("notes")))
    assert 'the data of notes: state it with --license TEXT ("none needed" is an answer' in line
    many = tuple(Agreement(f"{i}" + "x" * 4000, "y" * 4000) for i in range(1000))
    assert len(describe(many)) < 2000
    assert "and 992 more" in describe(many)


def test_a_missing_agreement_is_asked_for_and_can_be_stated(
    public, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr("conversion.torch_models.is_installed", lambda: False)  # saves time
    convert = ["--input", str(public), "--to", "huggingface", "--output"]
    commands.main("convert", *convert, str(tmp_path / "asked"))
    assert "no licence or data use agreement is on record for the data of public: state it" in (
        capsys.readouterr().out
    )
    assert read(tmp_path / "asked").agreements == (Agreement("public"),)
    assert "| public | ? | not stated |" in (tmp_path / "asked/README.md").read_text()
    stated = ["--input", str(tmp_path / "asked"), "--to", "orbax", "--license", "none needed"]
    commands.main("convert", *stated, "--output", str(tmp_path / "stated"))
    assert "no licence" not in capsys.readouterr().out
    assert read(tmp_path / "stated").agreements == (Agreement("public", "none needed"),)
    assert conversion.load_initial(public).agreements == (Agreement("public"),)


def test_saving_from_python_says_and_states_them(public, tmp_path, caplog) -> None:
    model = conversion.from_pretrained(public)
    conversion.save_pretrained(model, tmp_path / "asked")
    assert "on record for the data of public" in caplog.text
    conversion.save_pretrained(model, tmp_path / "stated", license="DUA 12")
    assert "public (DUA 12)" in caplog.text
    assert "| public | ? | DUA 12 |" in (tmp_path / "stated/README.md").read_text()


def test_records_of_earlier_versions_are_completed(public, folder) -> None:
    """Manifests and checkpoints told only of the last run's data."""
    data = {"mimic": {"tokens": 99, "license": "DUA 12"}, "notes": {"tokens": 5, "license": ""}}
    known = (Agreement("mimic", "DUA 12", 99), Agreement("notes", tokens=5))
    (public / "manifest.json").write_text(json.dumps({"data": data, "step": 3}))
    assert read(public).agreements == (*known, Agreement("public"))
    meta = {"progress": {}, "data": data, "config": {"init_from": "/home/ann/base:stable"}}
    assert of_checkpoint(meta) == (Agreement("base:stable"), *known)
    assert of_checkpoint(meta | {"config": {"init_from": ""}}) == known
    meta["progress"]["agreements"] = []
    assert of_checkpoint(meta) == ()


@pytest.mark.parametrize(
    "record",
    [
        {"alpha": "SECRET"},
        ["SECRET"],
        [{"source": "SECRET", "license": 3, "tokens": None}],
        [{"source": "SECRET", "license": "x"}],
        [{"source": "SECRET", "license": "x", "tokens": "3"}],
        [{"source": "SECRET", "license": "x" * (LONGEST + 1), "tokens": 3}],
    ],
)
def test_malformed_records_are_refused_by_file_without_their_content(record, folder) -> None:
    edit_config(folder, **{KEY: record})
    with pytest.raises(InputError, match=rf"config\.json: {KEY}.* is not a") as error:
        read(folder)
    assert "SECRET" not in str(error.value)
    assert len(str(error.value)) < 400


def test_weights_that_are_not_those_of_the_manifest_are_refused(folder) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1  # one bit of one number
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"manifest\.json is of other weights than"):
        read(folder)
    (folder / "manifest.json").unlink()
    assert read(folder).agreements == (Agreement("random", "none needed"),)


def test_cards_show_names_out_of_files_as_they_are(folder, tmp_path) -> None:
    hostile = Agreement("a|b<script>x</script>\n# T", "[free](http://x) `y` __z__ mimic_iv")
    weights = read(folder)._replace(agreements=(hostile,), origin="x`<b>")
    target = tmp_path / "target"
    target.mkdir()
    write_huggingface(weights, target, 'q"\n```\n<i>')
    card = (target / "README.md").read_text()
    assert (
        r"| a\|b\<script\>x\</script\> # T | ? | \[free\](http://x) \`y\` \_\_z\_\_ mimic_iv |"
        in card
    )
    assert r"from x\`\<b\>." in card
    assert r"""from_pretrained("q\"\n```\n<i>")""" in card
    assert card.count("\n```") == 4
    assert read(target).agreements == (hostile,)
    shutil.rmtree(target)
