# SPDX-License-Identifier: Apache-2.0
"""The paper's datasets: each is read as it is distributed, and no record is lost unnoticed."""

import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bcmb_jax.data.ingest import SOURCES, Document, Skipped, read
from bcmb_jax.data.shards import open_shards
from bcmb_jax.data.tokenize import Tokenizer, load_tokenizer
from bcmb_jax.errors import InputError

ROOT = Path(__file__).parents[1]
REPEATED = "repeats an earlier text"
COLUMNS = "broken: wrong number of columns"
QUOTES = "broken: misplaced quote"
UNICODE = "broken: not valid Unicode"
JSON = "broken: not a JSON object"

Row = tuple[str, int, str] | tuple[str, int, str, str | None]


def write(folder: Path, files: dict[str, str | bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        data = content.encode() if isinstance(content, str) else content
        (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return folder


def rows(records: Any) -> list[Row]:
    """Every record as (file, line, text, group) or (file, line, reason)."""
    return [
        (r.file, r.line, r.text, r.group) if isinstance(r, Document) else (r.file, r.line, r.reason)
        for r in records
    ]


def questions(*options: Any) -> str:
    asked = [{"question": f"Why {i}?", "options": o} for i, o in enumerate(options)]
    return "".join(json.dumps({**q, "meta_info": "step1", "answer": "x"}) + "\n" for q in asked)


# Made-up texts in the layout of each distribution, with what a reader must not trip over.
# source -> (files, expected rows)
LAYOUTS: dict[str, tuple[dict[str, str | bytes], list[Row]]] = {
    "aci-bench": (
        {
            "train.csv": "dataset,encounter_id,dialogue,note\n"
            'virtscribe,D2N900,"[doctor] hi\n[patient] hi","CC:\n\nknee ""pain"""\n'
            "virtscribe,D2N901,[doctor] hi\n"
            "virtscribe,D2N902,[doctor] hi,\n",
            "clef_taskC_test3.csv": "dataset,encounter_id,dialogue,note\naci,D2N903,hi,cough\n",
            "train_metadata.csv": "dataset,encounter_id\nvirtscribe,D2N900\n",
        },
        [
            ("clef_taskC_test3.csv", 2, "cough", "D2N903"),
            ("train.csv", 2, 'CC:\n\nknee "pain"', "D2N900"),
            ("train.csv", 6, COLUMNS),
            ("train.csv", 7, "empty"),
        ],
    ),
    "ade": (
        {
            "ADE-NEG.txt": '7 NEG "Quoted" drug, well | borne.\r\n8 POS Not this.\n\n7 NEG \xa0\n',
            "DRUG-AE.rel": "5|A rash from aspirin.|rash|2|6|aspirin|12|19\r\n"
            "5|A rash from aspirin.|rash|2|6|aspirin|12|19\n"
            "6|A cut line|rash|2\n",
            "DRUG-DOSE.rel": "5|Aspirin 5 mg.|5 mg|8|12|Aspirin|0|7\n",
        },
        [
            ("ADE-NEG.txt", 1, '"Quoted" drug, well | borne.', "7"),
            ("ADE-NEG.txt", 2, COLUMNS),
            ("ADE-NEG.txt", 3, "empty"),
            ("ADE-NEG.txt", 4, "empty"),
            ("DRUG-AE.rel", 1, "A rash from aspirin.", "5"),
            ("DRUG-AE.rel", 2, REPEATED),
            ("DRUG-AE.rel", 3, COLUMNS),
        ],
    ),
    "brain-mri-stroke": (
        {
            "pone.0212778.s002.csv": ',ID,Label,Text\r\n1,11,0,No acute infarct.\r\n2,12,1,"Old, '
            'and new"\r\n3,13,0,No acute infarct.\r\n4,14,0,left, right\r\n'
        },
        [
            ("pone.0212778.s002.csv", 2, "No acute infarct.", "11"),
            ("pone.0212778.s002.csv", 3, "Old, and new", "12"),
            ("pone.0212778.s002.csv", 4, REPEATED),
            ("pone.0212778.s002.csv", 5, COLUMNS),
        ],
    ),
    "chexpert-plus": (
        {
            "df_chexpert_plus_240401.csv": "path_to_image,deid_patient_id,report,section_findings\n"
            'train/p1/s1/v1.jpg,patient1,"NARRATIVE:\nclear ""lungs""\n",clear\n'
            'train/p1/s1/v2.jpg,patient1,"NARRATIVE:\nclear ""lungs""\n",clear\n'
            "train/p2/s1/v1.jpg,patient2,,\n"
            'train/p3/s1/v1.jpg,patient3,"a"b,\n'
        },
        [
            ("df_chexpert_plus_240401.csv", 2, 'NARRATIVE:\nclear "lungs"\n', "patient1"),
            ("df_chexpert_plus_240401.csv", 5, 'NARRATIVE:\nclear "lungs"\n', "patient1"),
            ("df_chexpert_plus_240401.csv", 8, "empty"),
            ("df_chexpert_plus_240401.csv", 9, QUOTES),
        ],
    ),
    "chifir": (
        {
            "reports/pt13_r1.txt": "Hyphae seen.\r\n",
            "reports/pt13_r2.txt": "Hyphae seen.\r\n",
            "reports/pt130_r1.txt": b"40 \xb5m",
            "annotations/pt13_r1.ann": "T1\tFungus 0 6\tHyphae\n",
            "chifir_metadata.csv": "patient_id,report_no\n13,1\n",
        },
        [
            ("pt130_r1.txt", 1, UNICODE),
            ("pt13_r1.txt", 1, "Hyphae seen.\n", "13"),
            ("pt13_r2.txt", 1, "Hyphae seen.\n", "13"),
        ],
    ),
    "coral": (
        {
            "coral/annotated/breastca/20.txt": "Note a.",
            "coral/annotated/breastca/20.ann": "T1\tSite 0 4\tNote\n",
            "coral/annotated/pdac/0.txt": " ",
            "coral/unannotated/data/breastca_unannotated.csv": ",coral_idx,note_text\n"
            '0,140,"Note b:\n\n- plan"\n1,141\n',
            "coral/unannotated/gpt4_out/breastca.csv": "note_text\nno\n",
        },
        [
            ("annotated/breastca/20.txt", 1, "Note a.", None),
            ("annotated/pdac/0.txt", 1, "empty"),
            ("unannotated/data/breastca_unannotated.csv", 2, "Note b:\n\n- plan", None),
            ("unannotated/data/breastca_unannotated.csv", 5, COLUMNS),
        ],
    ),
    "eye-gaze-cxr": (
        {
            "audio_segmentation_transcripts/d1/transcript.json": json.dumps(
                {"full_text": "Heart is big.", "time_stamped_text": [{"phrase": "Heart"}]}, indent=1
            ),
            "audio_segmentation_transcripts/d2/transcript.json": '{"full_text": "Heart is big."}',
            "audio_segmentation_transcripts/d3/transcript.json": '{"full_text": "Cut',
            "audio_segmentation_transcripts/d4/transcript.json": '{"time_stamped_text": []}',
            "audio_segmentation_transcripts/d5/transcript.json": '{"full_text": "Clear."}',
            "master_sheet.csv": "dicom_id,path,study_id,patient_id\nd1,p,7,p1\nd2,p,8,p2\n",
            "other.json": "{}",
        },
        [
            ("d1/transcript.json", 1, "Heart is big.", "p1"),
            ("d2/transcript.json", 1, REPEATED),
            ("d3/transcript.json", 1, JSON),
            ("d4/transcript.json", 1, "broken: no text column"),
            ("d5/transcript.json", 1, "Clear.", None),
        ],
    ),
    "gout": (
        {
            "GOUT-CC-2019-CORPUS-REDACTED.csv": "Chief Complaint,Predict,Consensus\n"
            '"""toe hurts"", since <<TIME>>",Y,Y\nfell,N,-\nfell,N,-\n',
            "GOUT-CC-2020-CORPUS-REDACTED.csv": b"Chief Complaint,Predict,Consensus\n"
            b"can\x92t walk,U,-\n",
            "GOUT-CC-2019-CORPUS-SYNTHETIC.csv": "Chief Complaint,Predict,Consensus\nno,N,-\n",
        },
        [
            ("GOUT-CC-2019-CORPUS-REDACTED.csv", 2, '"toe hurts", since <<TIME>>', None),
            ("GOUT-CC-2019-CORPUS-REDACTED.csv", 3, "fell", None),
            ("GOUT-CC-2019-CORPUS-REDACTED.csv", 4, REPEATED),
            ("GOUT-CC-2020-CORPUS-REDACTED.csv", 2, UNICODE),
        ],
    ),
    "id-68": (
        {"corpus/15DG0001.txt": "A boy.", "corpus/15DG0002.txt": "", "ann/15DG0001.txt": "0\t1"},
        [
            ("15DG0001.txt", 1, "A boy.", None),
            ("15DG0002.txt", 1, "empty"),
        ],
    ),
    "inspect": (
        {
            "full/impressions_20250611.tsv": "impression_id\timpressions\n"
            '900\t"IMPRESSION:\n1. ""No"" clot, clear."\n901\n902\tClot.\n',
            "full/study_mapping_20250611.tsv": "image_id\timpression_id\tperson_id\n"
            "PE1\t900\t77\nPE2\t902\t78\n",
            "Final_Impressions.csv": "impression_id,impressions\n902,Clot.\n",
            "full/labels_20250611.tsv": "impression_id\tpe_positive\n900\tFalse\n",
        },
        [
            ("Final_Impressions.csv", 2, "Clot.", "78"),
            ("full/impressions_20250611.tsv", 2, 'IMPRESSION:\n1. "No" clot, clear.', "77"),
            ("full/impressions_20250611.tsv", 4, COLUMNS),
            ("full/impressions_20250611.tsv", 5, REPEATED),
        ],
    ),
    "mednli": (
        {
            "mli_train_v1.jsonl": '{"gold_label": "neutral", "sentence1": "He slept.", '
            '"sentence2": "He was tired.", "sentence1_parse": "(ROOT)"}\n{"sentence1": "He\n'
            '{"gold_label": "entailment", "sentence1": "He slept.", "sentence2": "Asleep."}\n'
            '{"gold_label": "neutral", "sentence1": "He slept.", "sentence2": "He was tired."}\n',
        },
        [
            ("mli_train_v1.jsonl", 1, "He slept.\n\nHe was tired.", "He slept."),
            ("mli_train_v1.jsonl", 2, JSON),
            ("mli_train_v1.jsonl", 3, "He slept.\n\nAsleep.", "He slept."),
            ("mli_train_v1.jsonl", 4, REPEATED),
        ],
    ),
    "medqa": (
        {
            "US/US_qbank.jsonl": questions({"A": "rest", "B": "ice"}, {"A": 5}, "x", 7, [["A"]])
            + '{"question": "Cut?", "options"\n'
            + questions([{"key": "A", "value": "rest"}, {"key": "B", "value": "ice"}]),
            "US/train.jsonl": questions({"A": "rest", "B": "ice"}),
        },
        [
            ("US_qbank.jsonl", 1, "Why 0?\n\nA. rest\nB. ice", None),
            *[("US_qbank.jsonl", n, "broken: text is not a string") for n in (2, 3, 4, 5)],
            ("US_qbank.jsonl", 6, JSON),
            ("US_qbank.jsonl", 7, REPEATED),
        ],
    ),
    "mimic-iii": (
        {
            "NOTEEVENTS.csv.gz": b'"ROW_ID","SUBJECT_ID","HADM_ID","CHARTDATE","CHARTTIME",'
            b'"STORETIME","CATEGORY","DESCRIPTION","CGID","ISERROR","TEXT"\n'
            b'1,90,,2150-01-01,,,"Nursing","Report",,,"Seen.\n\nPain ""9/10"", better\n"\n'
            b'2,90,,2150-01-01,,,"Nursing","Report",,1,"Wrong patient\n"\n'
            b'3,91,,2150-01-01,,,"Nursing","Report",,,"Seen.\n\nPain ""9/10"", better\n"\n'
            b'4,91,,2150-01-01,,,"Nursing","Report",,"x"y,"Gone"\n'
            b'5,91,,2150-01-01,,,"Nursing","Report",,,"\xe9"\n'
            b'6,92,,2150-01-01,,,"Nursing","Report",,0,"Home."\n',
            "ADMISSIONS.csv.gz": "ROW_ID,TEXT\n1,no\n",
        },
        [
            ("NOTEEVENTS.csv.gz", 2, 'Seen.\n\nPain "9/10", better\n', "90"),
            ("NOTEEVENTS.csv.gz", 6, "marked as an error"),
            ("NOTEEVENTS.csv.gz", 8, REPEATED),
            ("NOTEEVENTS.csv.gz", 12, QUOTES),
            ("NOTEEVENTS.csv.gz", 13, UNICODE),
            ("NOTEEVENTS.csv.gz", 14, "Home.", "92"),
        ],
    ),
    "mimic-iv-note": (
        {
            "note/discharge.csv.gz": "note_id,subject_id,hadm_id,note_type,note_seq,charttime,"
            'storetime,text\n90-DS-1,90,1,DS,1,2150-01-01,,"Name: ___\n\nHome, ""well"""\n',
            "note/radiology.csv.gz": "note_id,subject_id,hadm_id,note_type,note_seq,charttime,"
            "storetime,text\n91-RR-1,91,,RR,1,2150-01-01,,Clear.\n91-RR-2,91,,RR,2,2150-01-01,,"
            'Clear.\n91-RR-3,91,"half a row"\n',
            "note/radiology_detail.csv.gz": "note_id,subject_id,field_name,text\n1,90,code,no\n",
        },
        [
            ("discharge.csv.gz", 2, 'Name: ___\n\nHome, "well"', "90"),
            ("radiology.csv.gz", 2, "Clear.", "91"),
            ("radiology.csv.gz", 3, REPEATED),
            ("radiology.csv.gz", 4, COLUMNS),
        ],
    ),
    "mtsamples": (
        {
            "mtsamples.csv": ",description,medical_specialty,sample_name,transcription,keywords\n"
            '0, A cough., Allergy, Cough - 1 ,"SUBJECTIVE:,  Coughs, a lot.","allergy, cough"\n'
            '1, A cough., Medicine, Cough - 1 ,"SUBJECTIVE:,  Coughs, a lot.","medicine, cough"\n'
            "2, None., Surgery, None ,,surgery\n"
            "3, Cut., Surgery\n"
        },
        [
            ("mtsamples.csv", 2, "SUBJECTIVE:,  Coughs, a lot.", None),
            ("mtsamples.csv", 3, REPEATED),
            ("mtsamples.csv", 4, "empty"),
            ("mtsamples.csv", 5, COLUMNS),
        ],
    ),
    "negex": (
        {
            "Annotations-1-120.txt": "Report No.\tConcept\tSentence\tNegation\r\n"
            '1\tedema\t"No ""pitting"" edema, no pain."\tNegated\r\n'
            '1\tpain\t"No ""pitting"" edema, no pain."\tNegated\r\n2\tpain\tPain.\r\n',
            "rsAnnotations-1-120-random.txt": "line number\tCondition\tsentence\n1\tpain\tno\n",
        },
        [
            ("Annotations-1-120.txt", 2, 'No "pitting" edema, no pain.', "1"),
            ("Annotations-1-120.txt", 3, REPEATED),
            ("Annotations-1-120.txt", 4, COLUMNS),
        ],
    ),
    "primock57": (
        {
            "notes/day1_consultation01.json": '{"day": 1, "note": "3/7 hx of cough.\\nPlan: rest"}',
            "notes/day1_consultation02.json": '{"day": 1, "note": ["rest"]}',
            "notes/day1_consultation03.json": "[]",
            "transcripts/day1_consultation01_doctor.TextGrid": "no",
        },
        [
            ("day1_consultation01.json", 1, "3/7 hx of cough.\nPlan: rest", None),
            ("day1_consultation02.json", 1, "broken: text is not a string"),
            ("day1_consultation03.json", 1, JSON),
        ],
    ),
    "q-pain": (
        {
            "data_acute_cancer.csv": "Vignette,Question,Answer,Dosage,Explanation\n"
            '"Patient D, a [race] [gender]","Give it, or not?",Yes.,Low,Pain.\n'
            "Patient A fell.,Give it?,No.,,Mild.\n",
            "data_post_op.csv": "Vignette,Question,Answer,Dosage,Explanation\n"
            "Patient A fell.,Give it?,No.,,Mild.\nPatient D,\n",
        },
        [
            (
                "data_acute_cancer.csv",
                2,
                "Patient D, a [race] [gender]\n\nGive it, or not?\n\nYes.\n\nPain.",
                None,
            ),
            ("data_acute_cancer.csv", 3, "Patient A fell.\n\nGive it?\n\nNo.\n\nMild.", None),
            ("data_post_op.csv", 2, REPEATED),
            ("data_post_op.csv", 3, COLUMNS),
        ],
    ),
    "reflacx": (
        {
            "main_data/P102R000001/transcription.txt": "Lungs clear.",
            "main_data/P102R000001/fixations.csv": "x\n1\n",
            "main_data/P102R000002/transcription.txt": "Clear lungs.",
            "main_data/P300R000003/transcription.txt": "Lungs clear.",
            "main_data/P300R000004/transcription.txt": b"\xff\xfe\x00",
            "main_data/P300R000005/chest_bounding_box.csv": "xmin\n1\n",
            "main_data/metadata_phase_1.csv": "id,split,eye_tracking_data_discarded,image,"
            "dicom_id,subject_id\r\nP102R000001,train,False,f,d,77\r\n"
            "P102R000002,train,False,f,d,77\r\n",
            "main_data/metadata_phase_3.csv": "id,subject_id\r\nP300R000003,78\r\n",
        },
        [
            ("P102R000001/transcription.txt", 1, "Lungs clear.", "77"),
            ("P102R000002/transcription.txt", 1, "Clear lungs.", "77"),
            ("P300R000003/transcription.txt", 1, REPEATED),
            ("P300R000004/transcription.txt", 1, UNICODE),
        ],
    ),
    "respiratory-interviews": (
        {
            "CAR0001.txt": "D: What brings you in?\r\n".encode("utf-8-sig"),
            "RES0001.txt": "P: It's a cough.\n".encode("utf-16"),
            "RES0002.txt": b"\xfe\xff\x00",
            "README.txt": "no",
        },
        [
            ("CAR0001.txt", 1, "D: What brings you in?\n", None),
            ("RES0001.txt", 1, "P: It's a cough.\n", None),
            ("RES0002.txt", 1, UNICODE),
        ],
    ),
}


@pytest.mark.parametrize("source", LAYOUTS)
def test_a_source_is_read_as_it_is_distributed(tmp_path: Path, source: str) -> None:
    files, expected = LAYOUTS[source]
    assert rows(read([write(tmp_path, files)], source)) == expected


def test_every_clinical_source_has_a_layout_here() -> None:
    assert list(LAYOUTS) == [name for name in SOURCES if SOURCES[name].kind == "clinical"]


def test_the_sources_are_the_twenty_of_table_1() -> None:
    titles = [source.title for source in SOURCES.values() if source.kind == "clinical"]
    assert len(set(titles)) == len(titles) == 20
    assert titles == sorted(titles, key=str.lower)
    papers = [source.paper for source in SOURCES.values() if source.paper]
    assert len(papers) == 20
    assert sum(paper.samples for paper in papers) == 4_967_751
    # "The clinical datasets together amount to 2.8B tokens."
    assert sum(paper.tokens for paper in papers) == pytest.approx(2_883.67)
    assert all(source.licence and source.about and source.url for source in SOURCES.values())


def test_questions_are_read_from_tables_too(tmp_path: Path) -> None:
    content = (
        "\tmeta_info\tquestion\tanswer_idx\tanswer\toptions\n"
        "0\tstep1\tWhy?\tA\trest\t[{'key': 'A', 'value': \"dad's\"}, "
        "{'key': 'B', 'value': 'ice'}]\n"
        "1\tstep1\tWhy?\tA\trest\t[{'key': 'A'\n"
        "2\tstep1\tWhy?\tA\trest\t['A']\n"
    )
    file = write(tmp_path, {"medqa5_dev.tsv.gz": content}) / "medqa5_dev.tsv.gz"
    assert rows(read([file], "medqa")) == [
        ("medqa5_dev.tsv.gz", 2, "Why?\n\nA. dad's\nB. ice", None),
        ("medqa5_dev.tsv.gz", 3, "broken: text is not a string"),
        ("medqa5_dev.tsv.gz", 4, "broken: text is not a string"),
    ]
    only = [row[2] for row in rows(read([file], "medqa", "question"))]
    assert only == ["Why?", REPEATED, REPEATED]


def test_another_text_may_be_named_where_there_are_columns(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["aci-bench"][0])
    texts = [row[2] for row in rows(read([tmp_path], "aci-bench", "dialogue,note"))]
    assert texts[1] == '[doctor] hi\n[patient] hi\n\nCC:\n\nknee "pain"'
    groups = [row[3] for row in rows(read([tmp_path], "aci-bench", None, "dataset")) if row[3:]]
    assert groups == ["aci", "virtscribe"]
    with pytest.raises(InputError, match="source ade has no columns"):
        read([tmp_path], "ade", "sentence")


def test_a_patients_table_may_be_given_beside_the_texts(tmp_path: Path) -> None:
    write(tmp_path, LAYOUTS["inspect"][0])
    text, table = (
        tmp_path / f"full/{name}_20250611.tsv" for name in ("impressions", "study_mapping")
    )
    assert [row[3] for row in rows(read([text, table], "inspect")) if row[3:]] == ["77", "78"]
    with pytest.raises(InputError, match=r"no study_mapping_\*\.tsv, which says the patient"):
        read([text], "inspect")
    with pytest.raises(InputError, match="the input holds no impressions_"):
        read([table], "inspect")


def test_what_is_not_the_distribution_is_refused(tmp_path: Path) -> None:
    write(tmp_path, {"NOTEEVENTS.csv": "SUBJECT_ID,TEXT\n1,a\n", "notes.csv": "id,body\n1,a\n"})
    for arguments, message in [
        (([tmp_path], "mimic-iii"), "no column 'ISERROR'"),
        (([tmp_path / "notes.csv"], "mimic-iii"), "columns id, body, not 'TEXT': correct --text"),
        (([tmp_path], "chexpert-plus"), r"holds no df_chexpert_plus_\*\.csv file"),
        (([tmp_path], "mimic-4"), "choose from csv, .*, aci-bench, .*, pubmed, pmc$"),
    ]:
        with pytest.raises(InputError, match=message):
            read(*arguments)


def test_reading_again_gives_the_same_records(tmp_path: Path) -> None:
    records = read([write(tmp_path, LAYOUTS["mimic-iii"][0])], "mimic-iii")
    assert rows(records) == rows(records) == LAYOUTS["mimic-iii"][1]


def script(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/prepare_data.py", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )


def test_the_licence_travels_with_the_tokens(tmp_path: Path, tiny_tokenizer: Path) -> None:
    notes = "".join(f"{i // 2},,note {i}\n" for i in range(99))
    table = {"NOTEEVENTS.csv": f"SUBJECT_ID,ISERROR,TEXT\n{notes},,last\n"}
    arguments = ["--source", "mimic-iii", "--input", write(tmp_path / "in", table)]
    arguments += ["--tokenizer", tiny_tokenizer, "--output", tmp_path / "shards"]
    done = script(*arguments, "--validation-fraction", "0.2")
    assert done.returncode == 0, done.stderr
    assert "1 documents have no group" in done.stdout
    licence = "PhysioNet Credentialed Health Data Use Agreement 1.5.0"
    assert open_shards(tmp_path / "shards/train").index["license"] == licence
    done = script(*arguments, "--validation-fraction", "0", "--license", "DUA 12", "--overwrite")
    assert done.returncode == 0, done.stderr
    assert open_shards(tmp_path / "shards/train").index["license"] == "DUA 12"


def test_the_script_lists_every_source() -> None:
    done = script("--list-sources")
    assert done.returncode == 0, done.stderr
    blocks = done.stdout.split("\n\n")[1:]
    assert [block.split(":")[0] for block in blocks] == list(SOURCES)
    block = next(block for block in blocks if block.startswith("reflacx:"))
    for part in [
        "main_data/*/transcription.txt",
        "patient (subject_id in metadata_phase_?.csv)",
        "Credentialed Health Data Use Agreement",
        "2,543 samples, 0.1 M tokens",
        "unseen",
    ]:
        assert part in block


@pytest.fixture(scope="module")
def clinical(shared: Path) -> Path:
    return shared / "data/pretrain/clinical"


@pytest.fixture(scope="module")
def modernbert(shared: Path) -> Tokenizer:
    return load_tokenizer(str(shared / "data/tokenizers/modernbert"))


# source, its files, documents, groups, tokens; those of shared/data/README.md but for two. Its
# interviews (565,026) have their carriage returns; its MedQA (572,531) is another spelling of the
# options, near to a table's column as Python prints it.
REAL = [
    ("aci-bench", ["aci_bench"], 207, 207, 132_032),
    ("negex", ["negex"], 2_056, 116, 65_885),
    ("id-68", ["id68"], 68, 1, 14_682),
    ("primock57", ["primock57"], 57, 1, 13_234),
]
REAL_SLOW = [
    ("ade", ["ade_corpus"], 20_896, 2_972, 533_774),
    ("mtsamples", ["mtsamples/mtsamples_subset.csv.gz"], 911, 1, 682_040),
    (
        "medqa",
        ["medqa/phrases_no_exclude_test.jsonl.gz", "medqa/medqa5_dev.tsv.gz"],
        2_545,
        1,
        520_986,
    ),
    ("respiratory-interviews", ["simulated_resp_interviews"], 272, 1, 563_826),
]


def documents(clinical: Path, source: str, files: list[str]) -> list[Document]:
    """All documents, after checking that nothing is left out but repeats."""
    records = list(read([clinical / file for file in files], source))
    assert {r.reason for r in records if isinstance(r, Skipped)} <= {REPEATED}
    return [r for r in records if isinstance(r, Document)]


@pytest.mark.parametrize(("source", "files", "count", "groups", "tokens"), [*REAL, *REAL_SLOW])
def test_real_files_give_the_known_documents(
    clinical: Path, source: str, files: list[str], count: int, groups: int, tokens: int
) -> None:
    found = documents(clinical, source, files)
    assert (len(found), len({document.group for document in found})) == (count, groups)


@pytest.mark.parametrize(
    ("source", "files", "count", "groups", "tokens"),
    [*REAL, *(pytest.param(*row, marks=pytest.mark.slow) for row in REAL_SLOW)],
)
def test_real_files_give_the_known_tokens(
    clinical: Path,
    modernbert: Tokenizer,
    source: str,
    files: list[str],
    count: int,
    groups: int,
    tokens: int,
) -> None:
    texts = [document.text for document in documents(clinical, source, files)]
    assert sum(map(len, modernbert.encode_batch(texts))) == tokens


def test_a_real_kaggle_file_has_repeats_and_gaps(clinical: Path) -> None:
    records = read([clinical / "mtsamples/mtsamples_kaggle_head.csv"], "mtsamples")
    kinds = Counter(r.reason if isinstance(r, Skipped) else "text" for r in records)
    assert kinds == {"text": 305, REPEATED: 12, "empty": 4, QUOTES: 1}  # its last row is cut


@pytest.mark.slow
def test_real_dialogues_and_notes(clinical: Path, modernbert: Tokenizer) -> None:
    texts = [d.text for d in read([clinical / "aci_bench"], "aci-bench", "dialogue,note")]
    # README has 458,961, without the blank line between the two.
    assert sum(map(len, modernbert.encode_batch(texts))) == 459_367
