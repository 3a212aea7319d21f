# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of the synthetic notes: drugs, conditions, laboratory tests, imaging, names.

Tables have one row a line, cells apart by " / ", lists inside a cell by "; ". People, places and
numbers are invented; doses are merely plausible.
"""

from typing import NamedTuple


def split(text: str) -> tuple[str, ...]:
    """The items of "a; b; c"."""
    return tuple(" ".join(item.split()) for item in text.split(";") if item.strip())


def _rows(table: str) -> list[list[str]]:
    return [[cell.strip() for cell in f"{row} ".split(" / ")] for row in table.strip().splitlines()]


class Drug(NamedTuple):
    doses: tuple[str, ...]
    route: str
    frequencies: tuple[str, ...]


class Condition(NamedTuple):
    names: tuple[str, ...]
    drugs: tuple[str, ...]
    status: str
    """What a plan says about it when it is quiet."""


class Lab(NamedTuple):
    names: tuple[str, ...]
    unit: str
    decimals: int
    normal: tuple[float, float]
    low: tuple[float, float]
    high: tuple[float, float]


class Modality(NamedTuple):
    exam: str
    technique: str
    normal: tuple[str, ...]
    """Findings of a normal study; those that share a word with the abnormal one are left out."""


DRUGS = {
    name: Drug(split(doses), route, split(frequencies))
    for name, doses, route, frequencies in _rows("""
acetaminophen / 650 mg; 1000 mg / PO / q6h PRN pain; q8h PRN pain
albuterol / 2 puffs / inhaled / q4h PRN wheezing; q6h PRN shortness of breath
alendronate / 70 mg / PO / weekly
allopurinol / 100 mg; 300 mg / PO / daily
amlodipine / 5 mg; 10 mg / PO / daily
apixaban / 5 mg; 2.5 mg / PO / BID
aspirin / 81 mg; 325 mg / PO / daily
atorvastatin / 20 mg; 40 mg; 80 mg / PO / daily; nightly
azithromycin / 250 mg; 500 mg / PO / daily
bupropion / 150 mg; 300 mg / PO / daily
calcitriol / 0.25 mcg / PO / daily
calcium carbonate / 500 mg; 600 mg / PO / BID
carbidopa-levodopa / 25-100 mg / PO / TID
carvedilol / 3.125 mg; 6.25 mg; 12.5 mg; 25 mg / PO / BID
cefazolin / 1 g; 2 g / IV / q8h
cefpodoxime / 200 mg / PO / BID
ceftriaxone / 1 g; 2 g / IV / q24h
celecoxib / 100 mg; 200 mg / PO / BID; daily
cephalexin / 500 mg / PO / QID; q6h
ciprofloxacin / 500 mg / PO / BID
clopidogrel / 75 mg / PO / daily
colchicine / 0.6 mg / PO / daily; BID
diltiazem / 120 mg; 180 mg; 240 mg / PO / daily
diltiazem drip / 5 mg/hr; 10 mg/hr / IV / continuous
docusate / 100 mg / PO / BID
enoxaparin / 40 mg; 30 mg / SC / daily; BID
escitalopram / 10 mg; 20 mg / PO / daily
famotidine / 20 mg; 40 mg / PO / BID; nightly
ferrous sulfate / 325 mg / PO / daily; BID
finasteride / 5 mg / PO / daily
fluticasone-salmeterol / 250-50 mcg; 500-50 mcg / inhaled / BID
folic acid / 1 mg / PO / daily
furosemide / 20 mg; 40 mg; 80 mg / PO / daily; BID
furosemide IV / 40 mg; 80 mg / IV / BID; TID
gabapentin / 100 mg; 300 mg; 600 mg / PO / TID; nightly
glipizide / 5 mg; 10 mg / PO / daily; BID
heparin drip / 12 units/kg/hr; 18 units/kg/hr / IV / continuous
hydrochlorothiazide / 12.5 mg; 25 mg / PO / daily
ibuprofen / 400 mg; 600 mg / PO / q6h PRN pain; q8h PRN pain
insulin drip / 0.1 units/kg/hr; 0.05 units/kg/hr / IV / continuous
insulin glargine / 10 units; 18 units; 24 units; 32 units / SC / nightly
insulin lispro / 4 units; 6 units; 8 units / SC / with meals
ipratropium-albuterol / 3 mL / nebulized / q4h; q6h
ketorolac / 15 mg; 30 mg / IV / q6h PRN pain
labetalol / 10 mg; 20 mg / IV / PRN SBP > 180
lamotrigine / 100 mg; 200 mg / PO / BID
levetiracetam / 500 mg; 750 mg; 1000 mg / PO / BID
levothyroxine / 50 mcg; 75 mcg; 100 mcg; 125 mcg / PO / daily
lisinopril / 5 mg; 10 mg; 20 mg; 40 mg / PO / daily
lorazepam / 0.5 mg; 1 mg / PO / q8h PRN anxiety; nightly PRN sleep
losartan / 25 mg; 50 mg; 100 mg / PO / daily
melatonin / 3 mg; 5 mg / PO / nightly
metformin / 500 mg; 850 mg; 1000 mg / PO / BID
methotrexate / 15 mg; 20 mg / PO / weekly
metoprolol succinate / 25 mg; 50 mg; 100 mg / PO / daily
metoprolol tartrate / 12.5 mg; 25 mg; 50 mg / PO / BID
montelukast / 10 mg / PO / nightly
morphine / 2 mg; 4 mg / IV / q4h PRN pain
naproxen / 250 mg; 500 mg / PO / BID PRN pain
normal saline / 1 L; 125 mL/hr / IV / bolus; continuous
octreotide / 50 mcg/hr / IV / continuous
omeprazole / 20 mg; 40 mg / PO / daily
ondansetron / 4 mg / IV / q8h PRN nausea; q6h PRN nausea
oxycodone / 5 mg / PO / q4h PRN pain; q6h PRN pain
packed red blood cells / 1 unit; 2 units / IV / once
pantoprazole / 40 mg / PO / daily; BID
pantoprazole IV / 40 mg; 80 mg / IV / BID
phenazopyridine / 200 mg / PO / TID
piperacillin-tazobactam / 3.375 g; 4.5 g / IV / q6h; q8h
potassium chloride / 20 mEq; 40 mEq / PO / daily; BID
prednisone / 20 mg; 40 mg; 60 mg / PO / daily
ropinirole / 0.5 mg; 1 mg / PO / TID
rosuvastatin / 10 mg; 20 mg / PO / daily
sertraline / 50 mg; 100 mg / PO / daily
simvastatin / 20 mg; 40 mg / PO / nightly
sodium bicarbonate / 650 mg; 1300 mg / PO / BID; TID
spironolactone / 12.5 mg; 25 mg / PO / daily
sumatriptan / 50 mg; 100 mg / PO / PRN migraine
tamsulosin / 0.4 mg / PO / nightly
ticagrelor / 90 mg / PO / BID
tiotropium / 18 mcg / inhaled / daily
topiramate / 50 mg; 100 mg / PO / BID
trazodone / 50 mg; 100 mg / PO / nightly
vancomycin / 1 g; 1.25 g; 1.5 g / IV / q12h
warfarin / 2.5 mg; 5 mg; 7.5 mg / PO / daily
""")
}

CONDITIONS = {
    split(names)[0]: Condition(split(names), split(drugs), status)
    for names, drugs, status in _rows("""
hypertension; HTN / lisinopril; amlodipine; losartan; hydrochlorothiazide / blood pressure at goal
type 2 diabetes mellitus; DM2; T2DM / metformin; glipizide; insulin glargine / sliding scale insulin
type 1 diabetes mellitus; DM1; T1DM / insulin glargine; insulin lispro / diabetic diet
hyperlipidemia; HLD / atorvastatin; rosuvastatin; simvastatin / lipids as an outpatient
coronary artery disease; CAD / aspirin; metoprolol succinate; atorvastatin / no anginal symptoms
atrial fibrillation; AFib; AF / apixaban; warfarin; diltiazem; metoprolol tartrate / rate controlled
heart failure; CHF / furosemide; carvedilol; spironolactone / daily weights
chronic kidney disease stage 3; CKD 3 / calcitriol; sodium bicarbonate / renally dose medications
chronic obstructive pulmonary disease; COPD / tiotropium; albuterol; fluticasone-salmeterol / stable
asthma / albuterol; fluticasone-salmeterol; montelukast / no wheezing on exam
hypothyroidism / levothyroxine / TSH as an outpatient
gastroesophageal reflux disease; GERD / omeprazole; pantoprazole; famotidine / symptoms controlled
depression; MDD / sertraline; escitalopram; bupropion / mood stable
anxiety / escitalopram; lorazepam / stable
gout / allopurinol; colchicine / no acute flare
benign prostatic hyperplasia; BPH / tamsulosin; finasteride / voiding without difficulty
osteoporosis / alendronate; calcium carbonate / outpatient bone density scan
osteoarthritis; OA / acetaminophen; naproxen; celecoxib / pain controlled
migraine; migraines / sumatriptan; topiramate / no headache today
seizure disorder; epilepsy / levetiracetam; lamotrigine / seizure precautions
Parkinson's disease; PD / carbidopa-levodopa; ropinirole / doses on time
rheumatoid arthritis; RA / methotrexate; folic acid; prednisone / no active synovitis
peripheral neuropathy / gabapentin / fall precautions
iron deficiency anemia; IDA / ferrous sulfate / trend hemoglobin
insomnia / trazodone; melatonin / sleep hygiene
""")
}
ONLY = {"benign prostatic hyperplasia": "M", "osteoporosis": "F"}


def _range(cell: str) -> tuple[float, float]:
    low, high = cell.split("-")
    return float(low), float(high)


LABS = {
    split(names)[0]: Lab(split(names), unit, int(decimals), _range(ok), _range(low), _range(high))
    for names, unit, decimals, ok, low, high in _rows("""
WBC; white count / K/uL / 1 / 4.5-10.4 / 1.4-3.6 / 11.6-22.8
hemoglobin; Hgb / g/dL / 1 / 12.4-15.6 / 6.4-9.8 / 16.8-18.9
platelets; Plt / K/uL / 0 / 160-380 / 42-128 / 460-690
sodium; Na / mmol/L / 0 / 136-144 / 122-132 / 148-156
potassium; K / mmol/L / 1 / 3.6-4.9 / 2.6-3.3 / 5.4-6.6
bicarbonate; HCO3 / mmol/L / 0 / 22-28 / 8-17 / 31-38
BUN / mg/dL / 0 / 8-20 / 4-6 / 28-84
creatinine; Cr / mg/dL / 1 / 0.6-1.1 / 0.3-0.5 / 1.7-5.2
glucose / mg/dL / 0 / 82-124 / 44-62 / 214-586
magnesium; Mg / mg/dL / 1 / 1.8-2.4 / 1.1-1.5 / 2.8-3.4
lactate / mmol/L / 1 / 0.7-1.8 / 0.3-0.5 / 2.6-7.4
troponin / ng/mL / 2 / 0.01-0.03 / 0.01-0.02 / 0.18-9.40
CK / U/L / 0 / 40-180 / 20-30 / 420-3800
BNP / pg/mL / 0 / 20-90 / 5-15 / 640-4200
procalcitonin / ng/mL / 2 / 0.02-0.09 / 0.01-0.02 / 0.60-14.00
ALT / U/L / 0 / 12-44 / 4-8 / 92-480
alkaline phosphatase; alk phos / U/L / 0 / 44-118 / 20-35 / 168-520
total bilirubin; T bili / mg/dL / 1 / 0.3-1.1 / 0.1-0.2 / 2.2-7.8
INR / - / 1 / 0.9-1.2 / 0.7-0.8 / 2.1-4.8
D-dimer / ng/mL / 0 / 120-460 / 50-100 / 980-6800
CRP / mg/L / 1 / 0.4-4.8 / 0.1-0.3 / 38.0-240.0
TSH / mIU/L / 2 / 0.60-4.10 / 0.01-0.12 / 7.20-24.00
A1c; hemoglobin A1c / % / 1 / 5.0-5.6 / 4.0-4.6 / 8.4-13.2
""")
}

MODALITIES = {
    name: Modality(exam, technique, split(normal))
    for name, exam, technique, normal in _rows("""
chest x-ray / XR CHEST, PA AND LATERAL / Frontal and lateral views of the chest were obtained. / \
The cardiac silhouette is normal in size; There is no pneumothorax; No pleural effusion; The lungs \
are otherwise clear without consolidation; No acute osseous abnormality
CT angiogram chest / CT ANGIOGRAM OF THE CHEST / Axial images were acquired after 80 mL of \
iodinated contrast. / The heart is normal in size; No pericardial effusion; The lungs are clear; \
The aorta is normal in caliber; No enlarged lymph nodes; No suspicious bone lesion
CT abdomen and pelvis / CT ABDOMEN AND PELVIS WITH CONTRAST / Axial images were obtained with oral \
and intravenous contrast. / The liver enhances homogeneously; The spleen and adrenal glands are \
unremarkable; The gallbladder is normal; No free air or free fluid; No bowel obstruction; The \
urinary bladder is unremarkable; Visualized lung bases are clear
CT head / CT HEAD WITHOUT CONTRAST / Axial images of the head were obtained without contrast. / \
The basal cisterns are patent; No acute hemorrhage; The paranasal sinuses are clear; No skull \
fracture; Mild periventricular white matter changes are present
MRI brain / MRI BRAIN WITHOUT CONTRAST / Multiplanar multisequence images including diffusion were \
obtained. / No acute hemorrhage; The ventricles are normal in size; Major flow voids are \
preserved; The orbits are unremarkable
right upper quadrant ultrasound / RIGHT UPPER QUADRANT ULTRASOUND / Grayscale and color Doppler \
images were obtained. / The liver is normal in echotexture; The common bile duct measures 4 mm; No \
right hydronephrosis; The pancreas is partly obscured by bowel gas
renal ultrasound / RENAL ULTRASOUND / Grayscale images of both kidneys and the bladder were \
obtained. / No renal calculi; The bladder is unremarkable; No perinephric fluid; Renal cortical \
thickness is preserved
lower extremity ultrasound / LOWER EXTREMITY VENOUS DUPLEX / Compression and Doppler images of the \
deep veins were obtained. / The common femoral vein is compressible with normal flow; No Baker's \
cyst; Normal respiratory variation
hip radiographs / HIP AND PELVIS RADIOGRAPHS / AP pelvis and two views of the hip were obtained. / \
The pelvic ring is intact; Degenerative changes of the lumbar spine; Bones are demineralized; Soft \
tissues are unremarkable
echocardiogram / TRANSTHORACIC ECHOCARDIOGRAM / Two-dimensional and Doppler images were obtained. \
/ The right ventricle is normal in size; The aortic valve has three leaflets without stenosis; \
Trace mitral regurgitation; No pericardial effusion
EKG / 12-LEAD ELECTROCARDIOGRAM / Standard 12-lead tracing was recorded. / Normal axis; QTc is \
within normal limits; No Q waves; No prior tracing for comparison
EGD / UPPER ENDOSCOPY REPORT / The endoscope was passed under moderate sedation. / The esophagus \
is normal without varices; The gastric mucosa is mildly erythematous; Biopsies were taken; The \
gastroesophageal junction is at 40 cm
""")
}

SYSTEMS = {
    system: split(normal)
    for system, normal in _rows("""
General / alert and oriented, in no acute distress; comfortable; NAD, well-appearing
Heart / regular rate and rhythm, no murmurs; RRR, no m/r/g; normal S1 and S2 without murmurs
Lungs / clear to auscultation bilaterally; CTAB, no wheezes; clear b/l, breathing comfortably
Abdomen / soft, nontender, nondistended; soft, NT/ND, normal bowel sounds; soft without rebound
Back / no costovertebral angle tenderness; no CVA tenderness
Extremities / no edema, warm and well perfused; no edema b/l, 2+ pulses; warm without cyanosis
Skin / no rashes; warm and dry, no lesions
Rectal / deferred
Neuro / no focal deficits; moving all extremities, CN II-XII intact; alert and oriented x3
""")
}

FIRST_NAMES = {
    "F": split("""Maria; Linda; Susan; Karen; Dorothy; Angela; Ruth; Teresa; Gloria; Janet; Alice;
        Rosa; Helen; Diane; Joyce; Evelyn; Carmen; Martha; Paula; Irene; Naomi; Grace; Priya; Mei;
        Fatima; Sofia; Hannah; Claire; Yolanda; Beatrice; Ingrid; Tamara"""),
    "M": split("""James; Robert; Carlos; David; Thomas; George; Kenneth; Walter; Frank; Raymond;
        Henry; Arthur; Samuel; Victor; Luis; Harold; Eugene; Philip; Martin; Howard; Omar; Wei;
        Rajesh; Dmitri; Andre; Miguel; Stanley; Leon; Felix; Oscar; Gerald; Ivan"""),
}
LAST_NAMES = split("""Alvarez; Bennett; Carver; Delgado; Ellison; Foster; Greenberg; Holloway;
    Ibrahim; Jensen; Kowalski; Lambert; Mercer; Nakamura; Okafor; Patel; Quintero; Ramsey; Sandoval;
    Thornton; Underwood; Vasquez; Whitaker; Yamada; Zimmerman; Abbott; Barlow; Castillo; Donovan;
    Eriksen; Fitzgerald; Gupta; Harmon; Iverson; Jacobs; Keller; Lindqvist; Mahoney; Novak; Ortiz;
    Pruitt; Reyes; Schaefer; Tran; Ueda; Vaughn; Weiss; Xiong; Young; Zhang""")
HOSPITALS = split("""Harbor Point Medical Center; Saint Aldric Hospital; Lakemont Regional Hospital;
    Cedar Hollow Medical Center; Northbridge University Hospital""")
TOWNS = split(
    "Millbrook; Ashford; Fairhaven; Westmere; Elmsville; Stonegate; Rockport; Brightwater"
)
STREETS = split("Maple Street; Oak Avenue; Harbor Road; Chapel Lane; Mill Road; Prospect Street")
JOBS = split("""retired teacher; retired electrician; school bus driver; accountant; carpenter;
    nurse; retired postal worker; restaurant cook; farmer; librarian; truck driver""")
FAMILIES = split("wife; husband; daughter; son; sister; brother; niece; roommate")
ALLERGIES = split("""penicillin > hives; penicillin > rash; penicillin > anaphylaxis; sulfa > rash;
    morphine > itching; codeine > nausea; lisinopril > cough; latex > contact dermatitis;
    aspirin > wheezing; ciprofloxacin > tendon pain; iodinated contrast > hives; shellfish > hives;
    vancomycin > flushing; oxycodone > confusion; metformin > diarrhea""")
NEGATIVES = split("""chest pain; shortness of breath; fevers; chills; nausea; vomiting; diarrhea;
    abdominal pain; dysuria; headache; dizziness; palpitations; leg swelling; cough; rash; weakness;
    syncope; night sweats; melena; hematuria; vision changes""")
