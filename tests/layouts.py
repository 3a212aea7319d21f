# SPDX-License-Identifier: Apache-2.0
"""Made-up files in the layout of each distribution, and the records they hold."""

import json
from typing import Any

REPEATED = "repeats an earlier text"
COLUMNS = "broken: wrong number of columns"
QUOTES = "broken: misplaced quote"
UNICODE = "broken: not valid Unicode"
JSON = "broken: not a JSON object"

Row = tuple[str, int, str] | tuple[str, int, str, str | None]


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
