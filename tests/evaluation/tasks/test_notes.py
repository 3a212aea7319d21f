# SPDX-License-Identifier: Apache-2.0
"""Clinical notes in the XML layouts of i2b2 and n2c2, made up, and hostile ones."""

import pytest

from tests.fixtures.task_readers import read, refused, tagged

SECRET = "Zebulon"
BOMB = '<!DOCTYPE x [<!ENTITY a "Zebulon"><!ENTITY b "&a;&a;&a;&a;">]>\n'
TEXT = "Seen by Zebulon today.\n"
MARKED = 'Seen by <PHI TYPE="DOCTOR">Zebulon</PHI> <PHI TYPE="DATE">today</PHI>.\n'
EXPECTED = ["O", "O", "B-DOCTOR", "B-DATE", "O"]


def records(inside: str, n: int) -> str:
    return "<ROOT>\n" + f'<RECORD ID="1">\n{inside}</RECORD>\n' * n + "</ROOT>\n"


def files_2006(stem: str, inside: str, bad: str | None = None):
    return {
        f"{stem}_train_all_version2.xml": records(inside, 10),
        f"{stem}_test_all_groundtruth_version2.xml": bad or records(inside, 2),
    }


def note(tags: str, text: str = TEXT) -> str:
    return f"<root>\n<TEXT><![CDATA[{text}]]></TEXT>\n<TAGS>\n{tags}</TAGS>\n</root>\n"


def files_beside(good: str, bad: str = ""):
    files = {f"training-1/{i}.xml": good for i in range(10)}
    return files | {"testing/a.xml": bad or good}


def tag(element: str, start: object, end: object, kind: str, attribute: str, text: str) -> str:
    at = f'start="{start}" end="{end}" text="{text}"'
    return f'<{element} id="P0" {at} {attribute}="{kind}"/>\n'


DEID = tag("NAME", 8, 15, "DOCTOR", "TYPE", "Zebulon") + tag(
    "DATE", 16, 21, "DATE", "TYPE", "today"
)
TIMES = tag("EVENT", 1, 5, "OCCURRENCE", "type", "Seen") + tag(
    "TIMEX3", 17, 22, "DATE", "type", "today"
)


def test_marks_within_the_text_become_tags(write) -> None:
    folder = write(files_2006("deid_surrogate", f"<TEXT>{MARKED}</TEXT>\n"))
    dataset = read("i2b2_2006_deid", folder)
    assert [len(x) for x in dataset.splits.values()] == [9, 1, 2]
    assert [x for _, x in tagged(dataset, dataset.splits["test"][0])] == EXPECTED


def test_smoking(write) -> None:
    inside = f'<SMOKING STATUS="PAST SMOKER"></SMOKING>\n<TEXT>{TEXT}</TEXT>\n'
    dataset = read("i2b2_2006_smoking", write(files_2006("smokers_surrogate", inside)))
    example = dataset.splits["test"][1]
    assert example.text == TEXT.strip()
    assert [dataset.labels[i] for i in example.labels] == ["PAST SMOKER"]
    assert example.where.endswith("version2.xml, line 7")


def test_offsets_beside_the_text_become_tags(write) -> None:
    dataset = read("i2b2_2014_deid", write(files_beside(note(DEID))))
    assert [len(x) for x in dataset.splits.values()] == [9, 1, 1]
    assert [x for _, x in tagged(dataset, dataset.splits["test"][0])] == EXPECTED


def test_offsets_from_one_are_put_right(write) -> None:
    dataset = read("i2b2_2012", write(files_beside(note(TIMES))))
    tags = [x for _, x in tagged(dataset, dataset.splits["test"][0])]
    assert tags == ["B-OCCURRENCE", "O", "O", "B-DATE", "O"]


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (note(tag("NAME", 8, 9_999, "DOCTOR", "TYPE", SECRET)), 5),
        (note(tag("NAME", -8, 15, "DOCTOR", "TYPE", SECRET)), 5),
        (note(tag("NAME", 15, 8, "DOCTOR", "TYPE", SECRET)), 5),
        (note(tag("NAME", SECRET, 8, "DOCTOR", "TYPE", SECRET)), 5),
        (note(tag("NAME", 8, 15, SECRET, "TYPE", SECRET)), 5),
        ("<root>\n<TAGS></TAGS></root>\n", 1),
        (f"<root>\n<TEXT>{SECRET}\n</root>\n", 3),
        (BOMB + note(DEID, "&b;"), 1),
    ],
)
def test_hostile_notes_are_named_by_line(bad: str, line: int, write) -> None:
    message = refused("i2b2_2014_deid", write(files_beside(note(DEID), bad)))
    assert f"a.xml, line {line}" in message
    assert SECRET not in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("bad", "line"),
    [
        (records(f'<TEXT><PHI TYPE="{SECRET}">x</PHI></TEXT>\n', 1), 2),
        (records(f"<NOTE>{SECRET}</NOTE>\n", 1), 2),
        (records("<TEXT>", 1), 3),
        (BOMB + records("<TEXT>&b;</TEXT>\n", 1), 1),
    ],
)
def test_hostile_records_are_named_by_line(bad: str, line: int, write) -> None:
    folder = write(files_2006("deid_surrogate", f"<TEXT>{MARKED}</TEXT>\n", bad))
    message = refused("i2b2_2006_deid", folder)
    assert f"version2.xml, line {line}" in message
    assert SECRET not in message


def test_a_test_set_is_needed(write) -> None:
    files = files_beside(note(DEID))
    files.pop("testing/a.xml")
    assert "no note of test" in refused("i2b2_2014_deid", write(files))


def test_the_notes_of_a_patient_stay_in_one_split(write) -> None:
    files = files_beside(note(DEID))
    texts = {
        f"training-1/{i}-0{n}.xml": note(DEID, TEXT + f"p{i}") for i in range(10) for n in "123"
    }
    dataset = read("i2b2_2014_deid", write({"testing/a.xml": files["testing/a.xml"]} | texts))
    patients = [{x.text[-1] for x in dataset.splits[s]} for s in ("train", "validation")]
    assert [len(x) for x in dataset.splits.values()] == [27, 3, 1]
    assert not patients[0] & patients[1]
