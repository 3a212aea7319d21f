# SPDX-License-Identifier: Apache-2.0
"""The paper's datasets, Table 1's twenty, PubMed and PMC, each read from the files as distributed.

The comment over a row says how its layout is known. "Read" is what this project has read and
counted; files nobody here has seen are laid out as other people's code reads them, named by
repository, and their `about` says so. `unique` is set where the paper's count is that of distinct
texts: seen in ADE and NegEx, elsewhere inferred from its being less than what is distributed.
"""

from functools import partial

from bcmb_jax.data.ingest.ade import read_ade
from bcmb_jax.data.ingest.by_name import read_by_name
from bcmb_jax.data.ingest.delimited import read_delimited
from bcmb_jax.data.ingest.files import by_text
from bcmb_jax.data.ingest.groups import Group, GroupTable
from bcmb_jax.data.ingest.jats_package import by_article, newest_first, read_pmc
from bcmb_jax.data.ingest.json_object import read_json_object
from bcmb_jax.data.ingest.pubmed import read_pubmed
from bcmb_jax.data.ingest.pubmed_versions import pubmed_reader
from bcmb_jax.data.ingest.questions import read_questions
from bcmb_jax.data.ingest.source import Paper, Source
from bcmb_jax.data.ingest.text import read_text

_CREDENTIALED = "PhysioNet Credentialed Health Data Use Agreement 1.5.0"
_STANFORD = "Stanford University Dataset Research Use Agreement"

_CSV = partial(read_delimited, delimiter=",")

SOURCES = {
    # Read: wyim/aci-bench, data/challenge_data.
    "aci-bench": Source(
        "ACI-BENCH",
        Paper("US", "Clinical Notes", "Not Reported", 207, 0.1),
        ("train.csv", "valid.csv", "clinicalnlp_task[BC]_test?.csv", "clef_taskC_test3.csv"),
        _CSV,
        "CC BY 4.0",
        "https://github.com/wyim/aci-bench",
        "notes alone, as the paper counts; --text-column dialogue,note adds the conversations",
        text_column="note",
        group=Group("encounter", column="encounter_id"),
    ),
    # Read: ADE-Corpus-V2. Every sentence of its third file, DRUG-DOSE.rel, is in these two.
    "ade": Source(
        "ADE Corpus",
        Paper("Several", "Clinical Notes", "Not Reported", 20_896, 0.5),
        ("DRUG-AE.rel", "ADE-NEG.txt"),
        read_ade,
        "none stated; the authors ask to be cited (sentences of PubMed abstracts)",
        "https://doi.org/10.1016/j.jbi.2012.04.008",
        "each sentence once, however many relations it has",
        group=Group("article", column="PubMed id"),
        unique=by_text,
    ),
    # The header ",ID,Label,Text" and a line a report: datasets/kim-2019/get_dataset.sh of EdIE-R's
    # authors, who count 3,024 reports. Not known: the encoding, whether ID is a patient's.
    "brain-mri-stroke": Source(
        "Brain MRI Stroke",
        Paper("Korea", "Radiology Reports", "Neurology", 2_603, 0.2),
        ("*pone.0212778.s002*",),
        _CSV,
        "CC BY 4.0 (supporting information of a PLOS ONE article)",
        "https://doi.org/10.1371/journal.pone.0212778.s002",
        "unseen (layout: others' code); 3,024 reports; the paper seems to count distinct ones",
        text_column="Text",
        group=Group("report", column="ID"),
        unique=by_text,
    ),
    # Columns: Stanford-AIMI/chexpert-plus (README) and Redivis clients that list them all.
    "chexpert-plus": Source(
        "CheXpert Plus",
        Paper("US", "Radiology Reports", "Pulmonology", 223_460, 60.6),
        ("df_chexpert_plus_*.csv",),
        _CSV,
        _STANFORD,
        "https://stanfordaimi.azurewebsites.net/datasets/5158c524-d3ab-4e02-96e9-6ee9efc110a1",
        "unseen (layout: others' code); a report comes, and counts, with each of its images",
        text_column="report",
        group=Group("patient", column="deid_patient_id"),
    ),
    # vlada-rozova/chifir-jbi, by the dataset's authors: reports/pt{patient}_r{report}.txt, 283.
    "chifir": Source(
        "CHIFIR",
        Paper("Australia", "Pathology Reports", "Hematology / Oncology", 283, 0.1),
        ("reports/pt*_r*.txt",),
        read_text,
        _CREDENTIALED,
        "https://physionet.org/content/corpus-fungal-infections/",
        "unseen (layout: its authors' code)",
        group=Group("patient", path=r"pt(\d+)_r\d+\.txt"),
    ),
    # Files and `note_text`: the FactEHR loader and BittermanLab/OncoRABBITS.
    "coral": Source(
        "CORAL",
        Paper("US", "Progress Notes", "Hematology / Oncology", 240, 0.7),
        ("annotated/*/*.txt", "unannotated/data/*_unannotated.csv"),
        read_by_name,
        f"{_CREDENTIALED}, non-commercial",
        "https://physionet.org/content/curated-oncology-reports/",
        "unseen (layout: others' code): 40 annotated notes (a test set) and 200 more",
        text_column="note_text",
    ),
    # `full_text`, `dicom_id` and `patient_id`: several loaders of EGD-CXR 1.0.0.
    "eye-gaze-cxr": Source(
        "Eye Gaze CXR",
        Paper("US", "Radiology Reports", "Pulmonology", 892, 0.03),
        ("audio_segmentation_transcripts/*/transcript.json",),
        read_json_object,
        _CREDENTIALED,
        "https://physionet.org/content/egd-cxr/",
        "unseen (layout: others' code); 1,083 dictations; the paper seems to count distinct ones",
        text_column="full_text",
        group=Group(
            "patient",
            path=r"([^/]+)/transcript\.json",
            table=GroupTable(("master_sheet.csv",), "dicom_id", "patient_id"),
        ),
        unique=by_text,
    ),
    # Name and columns of 2019's file: a published log of pandas reading it (UTF-8, quoted). Not
    # known: 2020's, and why the paper has more than PhysioNet's 300 + 8,037; the twins named
    # CORPUS-SYNTHETIC, the same complaints with invented names, are not read.
    "gout": Source(
        "Gout Chief Complaints",
        Paper("US", "Chief Complaint", "Internal Medicine", 8_429, 0.2),
        ("GOUT-CC-20??-CORPUS-REDACTED.csv",),
        _CSV,
        "PhysioNet Restricted Health Data Use Agreement 1.5.0",
        "https://physionet.org/content/emer-complaint-gout/",
        "unseen (layout: a log of 2019's file, 2020's assumed); its page counts 8,337",
        text_column="Chief Complaint",
        unique=by_text,
    ),
    # Read: phenobert/data/ID-68 of EclipseCN/PhenoBERT.
    "id-68": Source(
        "ID-68",
        Paper("UK", "Clinical Notes", "Psychology", 78, 0.02),
        ("corpus/*.txt",),
        read_text,
        "none stated (published case descriptions; PhenoBERT, which has them, is MIT)",
        "https://github.com/EclipseCN/PhenoBERT",
        "68 texts, where the paper's table says 78",
    ),
    # Files, `impressions`, `impression_id` and `person_id`: several clients of the release of June
    # 2025 (tsv) and of the one before (csv). Not known: the csv's other columns.
    "inspect": Source(
        "Inspect",
        Paper("US", "Radiology Reports", "Pulmonology", 22_259, 2.8),
        ("impressions_*.tsv", "Final_Impressions.csv"),
        read_by_name,
        _STANFORD,
        "https://stanfordaimi.azurewebsites.net/datasets/151848b9-8b31-4129-bc25-cefdf18f95d8",
        "unseen (layout: others' code); 23,248 impressions; the paper seems to count distinct ones",
        text_column="impressions",
        group=Group(
            "patient",
            column="impression_id",
            table=GroupTable(("study_mapping_*.tsv",), "impression_id", "person_id"),
        ),
        unique=by_text,
    ),
    # Files and keys: many loaders, bigbio's among them. Both sentences make the paper's 0.5 M.
    "mednli": Source(
        "MedNLI",
        Paper("US", "Clinical Notes", "Internal Medicine", 14_047, 0.5),
        ("mli_train_v1.jsonl", "mli_dev_v1.jsonl", "mli_test_v1.jsonl"),
        read_by_name,
        _CREDENTIALED,
        "https://physionet.org/content/mednli/",
        "unseen (layout: others' code): premise and hypothesis, three to a premise",
        text_column="sentence1,sentence2",
        group=Group("premise", column="sentence1"),
        unique=by_text,
    ),
    # 14,369 questions in US_qbank.jsonl by its users; read are the same keys in parts of it, a
    # jsonl with four options and a table with five.
    "medqa": Source(
        "MedQA",
        Paper("US", "National Medical Board Examination", "Not Reported", 14_366, 2.0),
        ("US_qbank.jsonl",),
        read_questions,
        "MIT (the repository's; none stated for the questions)",
        "https://github.com/jind11/MedQA",
        "whole file unseen, parts read; --text-column question is nearer to the paper's tokens",
        text_column="question,options",
        unique=by_text,
    ),
    # MIT-LCP/mimic-code, mimic-iii/buildmimic/postgres: columns, quoted csv, 2,083,180 rows.
    "mimic-iii": Source(
        "MIMIC-III",
        Paper("US", "Clinical Notes", "Internal Medicine", 2_021_411, 1_047.7),
        ("NOTEEVENTS.csv",),
        partial(_CSV, skip=("ISERROR", "1", "marked as an error")),
        _CREDENTIALED,
        "https://physionet.org/content/mimiciii/",
        "unseen (layout: MIMIC's code); 2,083,180 notes less errors and repeats",
        text_column="TEXT",
        group=Group("patient", column="SUBJECT_ID"),
        unique=by_text,
    ),
    # mimic.mit.edu, and mimic-code: 331,793 + 2,321,355 rows, UTF-8. *_detail.csv has no notes.
    "mimic-iv-note": Source(
        "MIMIC-IV Note",
        Paper("US", "Clinical Notes", "Internal Medicine", 2_631_243, 1_765.7),
        ("discharge.csv", "radiology.csv"),
        _CSV,
        _CREDENTIALED,
        "https://physionet.org/content/mimic-iv-note/",
        "unseen (layout: MIMIC's code); 2,653,148 notes; the paper seems to count distinct ones",
        text_column="text",
        group=Group("patient", column="subject_id"),
        unique=by_text,
    ),
    # Read: parts of the Kaggle file. It repeats a text under each of its specialties.
    "mtsamples": Source(
        "MTSamples",
        Paper("Not Reported", "Clinical Notes", "Internal Medicine", 2_358, 1.7),
        ("mtsamples*.csv",),
        _CSV,
        "CC0 by Kaggle's page; mtsamples.com states none",
        "https://www.kaggle.com/datasets/tboyle10/medicaltranscriptions",
        "transcriptions, each once; some rows have none",
        text_column="transcription",
        unique=by_text,
    ),
    # Read: negex.python/Annotations-1-120.txt. rsAnnotations-1-120-random.txt is the same
    # sentences in an order that no longer says which report they are from.
    "negex": Source(
        "Negex",
        Paper("US", "Discharge Summaries", "Not Reported", 2_056, 0.1),
        ("Annotations-1-120.txt",),
        partial(read_delimited, delimiter="\t"),
        "Apache-2.0",
        "https://github.com/chapmanbe/negex",
        "each sentence once, however many conditions it names",
        text_column="Sentence",
        group=Group("report", column="Report No."),
        unique=by_text,
    ),
    # Read: babylonhealth/primock57.
    "primock57": Source(
        "PriMock57",
        Paper("UK", "Simulated Patient Care", "Internal Medicine", 57, 0.01),
        ("notes/day*_consultation*.json",),
        read_json_object,
        "CC BY 4.0",
        "https://github.com/babylonhealth/primock57",
        "notes alone, as the paper counts; the transcripts (TextGrid) are not read",
        text_column="note",
    ),
    # Files, UTF-8 and columns: two loaders of Q-Pain 1.0.0. Eleven rows in each of five files; the
    # paper's 51 is what is left if one of them is in all.
    "q-pain": Source(
        "Q-Pain",
        Paper("US", "Clinical Vignettes", "Palliative Care", 51, 0.01),
        ("data_acute_*cancer.csv", "data_chronic_*cancer.csv", "data_post_op.csv"),
        _CSV,
        "CC BY-SA 4.0",
        "https://physionet.org/content/q-pain/",
        "unseen (layout: others' code); placeholders ([race], [gender]) are left as they are",
        text_column="Vignette,Question,Answer,Explanation",
        unique=by_text,
    ),
    # ricbl/eyetracking, by the dataset's authors, which writes main_data/{id}/transcription.txt.
    "reflacx": Source(
        "REFLACX",
        Paper("US", "Radiology Reports", "Pulmonology", 2_543, 0.1),
        ("main_data/*/transcription.txt",),
        read_text,
        _CREDENTIALED,
        "https://physionet.org/content/reflacx-xray-localization/",
        "unseen (layout: its authors' code); 3,032 readings; the paper seems to count distinct",
        group=Group(
            "patient",
            path=r"([^/]+)/transcription\.txt",
            table=GroupTable(("metadata_phase_?.csv",), "id", "subject_id"),
        ),
        unique=by_text,
    ),
    # Read: the 272 files, two of them UTF-16.
    "respiratory-interviews": Source(
        "Simulated Resp. Interviews",
        Paper("Canada", "Simulated Patient Care", "Pulmonology", 272, 0.6),
        ("[A-Z][A-Z][A-Z][0-9][0-9][0-9][0-9].txt",),
        read_text,
        "CC BY 4.0",
        "https://doi.org/10.6084/m9.figshare.c.5545842",
        "one simulated interview a file",
    ),
    # Read: one record, in the layout of NLM's baseline and update files.
    "pubmed": Source(
        "PubMed",
        None,
        ("*.xml", "*.jsonl"),
        read_pubmed,
        "NLM's terms; publishers may hold the copyright of abstracts",
        "https://pubmed.ncbi.nlm.nih.gov/download/",
        "abstracts in English, baseline and updates (or jsonl: pmid, title, abstract)",
        group=Group("article", column="PMID"),
        kind="biomedical",
        reader_of=pubmed_reader,
    ),
    # Read: 16 articles in the DTDs of 2003 to 2012.
    "pmc": Source(
        "PMC",
        None,
        ("*.nxml", "*.xml", "*.tar", "*.tgz", "*.jsonl"),
        read_pmc,
        "each article's own: keep to the commercial or the non-commercial subset",
        "https://pmc.ncbi.nlm.nih.gov/tools/openftlist/",
        "full texts, single or packed (or jsonl: pmcid, title, abstract, body), the newest of each",
        group=Group("article", column="PMCID"),
        unique=by_article,
        kind="biomedical",
        find=newest_first,
    ),
}
