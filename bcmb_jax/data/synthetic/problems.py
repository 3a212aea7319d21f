# SPDX-License-Identifier: Apache-2.0
"""Why the synthetic patients are in hospital, and everything coherent with it.

Lists are written "a; b; c". `[x|y]` in a phrase is a choice, `{fact}` a fact of the patient
(`notes.py` fills both). Written for this project: nothing is copied from a clinical text, and
nothing is medical advice.
"""

from typing import NamedTuple


class Problem(NamedTuple):
    """The reason of an admission; every field is a list in one string unless it says otherwise."""

    names: str
    complaint: str
    background: str  # one chronic condition that comes with it, or nothing
    specialist: str  # one
    symptoms: str
    vitals: str  # adjectives that `notes.py` turns into numbers
    system: str  # the one examined system that is abnormal
    exam: str  # its finding
    labs: str  # "WBC high; sodium low"
    imaging: str  # "modality > finding > impression"
    treatment: str  # inpatient drugs, as named in words.DRUGS
    course: str
    home: str  # drugs started at discharge
    advice: str
    procedure: str = ""  # one, or nothing
    operation: str = ""  # its steps


PROBLEMS = (
    Problem(
        "community-acquired pneumonia; CAP; pneumonia", "cough and fever; productive cough", "",
        "Pulmonology",
        "productive cough with [green|yellow|rust-colored] sputum; [subjective ]fevers and chills;"
        "{side}-sided pleuritic chest pain; shortness of breath; malaise",
        "febrile; tachycardic; hypoxic", "Lungs", "[crackles|rhonchi] at the {side} base",
        "WBC high; procalcitonin high; lactate high; sodium low",
        "chest x-ray > [Consolidation|Airspace opacity] in the {side} lower lobe with air "
        "bronchograms > {side} lower lobe pneumonia",
        "ceftriaxone; azithromycin; albuterol",
        "Blood cultures [drawn in the ED ]had no growth at 48 hours; Sputum culture grew "
        "Streptococcus pneumoniae sensitive to ceftriaxone; {He} was weaned from nasal cannula to "
        "room air; Antibiotics were narrowed to oral therapy",
        "cefpodoxime; azithromycin", "repeat chest x-ray in 6 weeks to document resolution",
    ),
    Problem(
        "acute decompensated heart failure; ADHF; CHF exacerbation",
        "shortness of breath; leg swelling", "heart failure", "Cardiology",
        "dyspnea on exertion; orthopnea; paroxysmal nocturnal dyspnea; bilateral leg swelling; "
        "weight gain of {number} pounds", "hypoxic; hypertensive", "Lungs",
        "bibasilar crackles with elevated JVP", "BNP high; creatinine high; sodium low",
        "chest x-ray > The cardiac silhouette is enlarged with pulmonary vascular congestion and "
        "small bilateral pleural effusions > pulmonary edema; echocardiogram > The left ventricle "
        "is dilated with an ejection fraction of {ef}% > reduced left ventricular systolic "
        "function", "furosemide IV; carvedilol; lisinopril",
        "{He} was diuresed with IV furosemide, net negative {units}.5 liters; Daily weights and "
        "strict I/Os were followed; Echocardiogram showed an ejection fraction of {ef}%; {He} was "
        "transitioned to oral furosemide once euvolemic",
        "furosemide; spironolactone", "weigh yourself every morning and follow a low sodium diet",
    ),
    Problem(
        "non-ST elevation myocardial infarction; NSTEMI", "chest pain; chest pressure",
        "coronary artery disease", "Cardiology",
        "substernal chest pressure radiating to the {side} arm; diaphoresis; nausea; dyspnea",
        "hypertensive; tachycardic", "Heart", "regular rate and rhythm with an S4 gallop",
        "troponin high; glucose high; CK high",
        "EKG > ST depressions in the lateral leads > ischemic changes; echocardiogram > Hypokinesis"
        " of the anterior wall with an ejection fraction of {ef}% > regional wall motion "
        "abnormality", "aspirin; heparin drip; metoprolol tartrate; atorvastatin",
        "Troponin peaked and then downtrended; {He} was loaded with aspirin and started on a "
        "heparin drip; Cardiac catheterization showed a 90% stenosis of the left anterior "
        "descending artery, treated with a drug-eluting stent; {He} remained chest pain free",
        "aspirin; ticagrelor; atorvastatin", "do not stop ticagrelor without asking cardiology",
        "cardiac catheterization with stent placement",
        "The {side} radial artery was accessed with a 6 French sheath; Coronary angiography showed "
        "a 90% stenosis of the left anterior descending artery; A drug-eluting stent was deployed "
        "with TIMI 3 flow",
    ),
    Problem(
        "acute exacerbation of COPD; COPD exacerbation; AECOPD", "shortness of breath; wheezing",
        "chronic obstructive pulmonary disease", "Pulmonology",
        "worsening dyspnea; wheezing; increased sputum production; chest tightness",
        "hypoxic; tachypneic; tachycardic", "Lungs",
        "diffuse expiratory wheezes with a prolonged expiratory phase",
        "bicarbonate high; WBC high",
        "chest x-ray > Hyperinflated lungs with flattened diaphragms > emphysema without pneumonia",
        "prednisone; ipratropium-albuterol; azithromycin",
        "{He} was treated with prednisone and nebulizers; BiPAP was needed overnight for "
        "hypercapnia and weaned the next day; Wheezing improved and {he} returned to {his} "
        "baseline oxygen; Smoking cessation was discussed",
        "prednisone; tiotropium", "finish the prednisone and stop smoking",
    ),
    Problem(
        "acute pulmonary embolism; PE; pulmonary embolism",
        "shortness of breath; pleuritic chest pain", "", "Hematology",
        "sudden onset dyspnea; {side}-sided pleuritic chest pain; palpitations; lightheadedness; "
        "{side} calf pain", "tachycardic; hypoxic; tachypneic", "Extremities",
        "{side} calf swelling and tenderness", "D-dimer high; troponin high; BNP high",
        "CT angiogram chest > Filling [defect|defects] in the {side} segmental pulmonary arteries >"
        " acute {side}-sided pulmonary embolism without right heart strain; lower extremity "
        "ultrasound > Noncompressible {side} popliteal vein > acute deep vein thrombosis of the "
        "{side} leg", "heparin drip; apixaban",
        "{He} was started on a heparin drip and transitioned to apixaban; Ultrasound showed a deep "
        "vein thrombosis in the {side} leg; Echocardiogram showed no right heart strain; {He} was "
        "ambulating on room air without desaturation",
        "apixaban", "take apixaban twice daily without missing doses",
    ),
    Problem(
        "acute ischemic stroke; CVA; stroke", "{side}-sided weakness; slurred speech",
        "atrial fibrillation", "Neurology",
        "sudden {side}-sided weakness; {side} facial droop; slurred speech; {side} arm numbness",
        "hypertensive", "Neuro", "{side} facial droop, {side} arm [drift|weakness], strength 3/5",
        "glucose high; INR high",
        "CT head > Hypodensity in the {other} middle cerebral artery territory without hemorrhage "
        "> evolving {other} middle cerebral artery infarct; MRI brain > Restricted diffusion in "
        "the {other} frontal and parietal lobes > acute {other} middle cerebral artery infarct",
        "aspirin; atorvastatin; labetalol",
        "MRI confirmed an acute infarct in the {other} middle cerebral artery territory; "
        "Permissive hypertension was allowed for 24 hours; {He} passed the bedside swallow study; "
        "Strength on the {side} side improved with physical therapy",
        "clopidogrel; atorvastatin", "continue physical, occupational and speech therapy",
    ),
    Problem(
        "acute appendicitis; appendicitis", "abdominal pain", "", "General Surgery",
        "periumbilical pain migrating to the right lower quadrant; nausea; anorexia; vomiting",
        "febrile; tachycardic", "Abdomen",
        "tender in the right lower quadrant with guarding at McBurney's point",
        "WBC high; CRP high",
        "CT abdomen and pelvis > Dilated appendix measuring {number} mm with periappendiceal fat "
        "stranding > acute uncomplicated appendicitis",
        "piperacillin-tazobactam; ketorolac; ondansetron",
        "{He} was taken to the operating room for laparoscopic appendectomy; The appendix was "
        "inflamed but not perforated; Diet was advanced as tolerated; Pain was controlled on oral "
        "medications", "oxycodone; acetaminophen", "no lifting over 10 pounds for 4 weeks",
        "laparoscopic appendectomy",
        "A Veress needle was used to establish pneumoperitoneum; The appendix was identified and "
        "noted to be inflamed without perforation; The mesoappendix was divided and the base was "
        "stapled; The appendix was removed in a retrieval bag",
    ),
    Problem(
        "acute cholecystitis; cholecystitis", "abdominal pain; right upper quadrant pain", "",
        "General Surgery", "right upper quadrant pain after fatty meals; nausea; vomiting; fevers",
        "febrile; tachycardic", "Abdomen",
        "tender in the right upper quadrant with a positive Murphy's sign",
        "WBC high; alkaline phosphatase high; total bilirubin high; ALT high",
        "right upper quadrant ultrasound > Gallstones with gallbladder wall thickening and "
        "pericholecystic fluid > acute cholecystitis",
        "piperacillin-tazobactam; morphine; ondansetron",
        "{He} underwent laparoscopic cholecystectomy; Intraoperative cholangiogram showed no "
        "stones in the common bile duct; Liver function tests downtrended; {He} tolerated a low "
        "fat diet", "oxycodone; docusate", "follow a low fat diet",
        "laparoscopic cholecystectomy",
        "Four ports were placed and the gallbladder was retracted; The critical view of safety was "
        "obtained; The cystic duct and cystic artery were clipped and divided; The gallbladder was "
        "dissected off the liver bed with cautery",
    ),
    Problem(
        "upper gastrointestinal bleed; UGIB; GI bleed", "black stools; hematemesis", "",
        "Gastroenterology", "melena; coffee ground emesis; lightheadedness; fatigue; epigastric "
        "discomfort", "tachycardic; hypotensive", "Rectal", "melena, guaiac positive",
        "hemoglobin low; BUN high; INR high",
        "EGD > A {number} mm duodenal ulcer with a visible vessel, treated with clips > bleeding "
        "duodenal ulcer", "pantoprazole IV; octreotide; packed red blood cells",
        "EGD showed a duodenal ulcer with a visible vessel, which was clipped; {He} was transfused "
        "{units} units of packed red blood cells; Hemoglobin remained stable without further "
        "melena; H. pylori stool antigen was sent", "pantoprazole; ferrous sulfate",
        "avoid ibuprofen, naproxen and other NSAIDs", "esophagogastroduodenoscopy with clipping",
        "The endoscope was advanced to the second portion of the duodenum; A {number} mm duodenal "
        "ulcer with a visible vessel was seen; Two hemostatic clips were placed with good control",
    ),
    Problem(
        "acute pyelonephritis; pyelonephritis; complicated UTI", "flank pain; dysuria and fever",
        "", "Infectious Disease", "{side} flank pain; dysuria; urinary frequency; fevers and "
        "chills; nausea", "febrile; tachycardic; hypotensive", "Back",
        "{side} costovertebral angle tenderness", "WBC high; lactate high; creatinine high",
        "renal ultrasound > Enlarged {side} kidney without hydronephrosis > findings consistent "
        "with {side} pyelonephritis", "ceftriaxone; normal saline; acetaminophen",
        "Urinalysis showed pyuria and nitrites; Urine culture grew E. coli sensitive to "
        "ciprofloxacin; {He} defervesced within 48 hours; Creatinine improved with IV fluids",
        "ciprofloxacin; phenazopyridine", "drink plenty of fluids and finish the antibiotics",
    ),
    Problem(
        "hip fracture; femoral neck fracture", "fall; {side} hip pain", "osteoporosis",
        "Orthopedic Surgery", "{side} hip pain after a mechanical fall; inability to bear weight; "
        "{side} groin pain", "tachycardic; hypertensive", "Extremities",
        "{side} leg shortened and externally rotated, neurovascularly intact",
        "hemoglobin low; CK high",
        "hip radiographs > Displaced fracture of the {side} femoral neck > displaced {side} "
        "femoral neck fracture", "oxycodone; enoxaparin; cefazolin",
        "{He} underwent {side} hip hemiarthroplasty; {He} was weight bearing as tolerated on the "
        "{side} leg with physical therapy; Hemoglobin was stable after surgery; Enoxaparin was "
        "given for DVT prophylaxis", "enoxaparin; oxycodone; calcium carbonate",
        "weight bearing as tolerated on the {side} leg", "{side} hip hemiarthroplasty",
        "A posterolateral approach to the {side} hip was made; The femoral head was removed and "
        "measured 4{units} mm; A cemented stem and bipolar head were placed; The hip "
        "was reduced and stable through a full range of motion",
    ),
    Problem(
        "cellulitis of the {side} leg; cellulitis; lower extremity cellulitis", "leg redness; "
        "leg pain and swelling", "type 2 diabetes mellitus", "Infectious Disease",
        "{side} leg redness; {side} leg swelling; warmth; chills", "febrile", "Skin",
        "erythema and warmth of the {side} lower leg without crepitus or fluctuance",
        "WBC high; CRP high; glucose high",
        "lower extremity ultrasound > Subcutaneous edema in the {side} calf without thrombus > no "
        "deep vein thrombosis in the {side} leg", "cefazolin; vancomycin; acetaminophen",
        "Erythema receded from the marked borders; MRSA nares swab was negative and vancomycin was "
        "stopped; Ultrasound was negative for deep vein thrombosis; The {side} leg was elevated",
        "cephalexin; ibuprofen", "keep the {side} leg elevated",
    ),
    Problem(
        "diabetic ketoacidosis; DKA", "nausea and vomiting; high blood sugar",
        "type 1 diabetes mellitus", "Endocrinology", "polyuria and polydipsia; nausea; vomiting; "
        "diffuse abdominal pain; missed insulin doses", "tachycardic; tachypneic; hypotensive",
        "General", "ill-appearing with dry mucous membranes and fruity breath",
        "glucose high; bicarbonate low; potassium high; A1c high; lactate high",
        "chest x-ray > No consolidation > no infectious trigger identified",
        "insulin drip; normal saline; potassium chloride",
        "The anion gap closed on an insulin drip; {He} was bridged to subcutaneous insulin "
        "glargine; Potassium was repleted; Diabetes education was provided",
        "insulin glargine; insulin lispro", "check your blood sugar four times a day",
    ),
    Problem(
        "atrial fibrillation with rapid ventricular response; AF with RVR; AFib RVR",
        "palpitations", "atrial fibrillation", "Cardiology", "palpitations; lightheadedness; "
        "dyspnea; fatigue; chest discomfort", "tachycardic", "Heart", "irregularly irregular and "
        "tachycardic without murmurs", "TSH low; magnesium low; potassium low",
        "EKG > Atrial fibrillation at a rate of {rate} > atrial fibrillation with rapid "
        "ventricular response; echocardiogram > The left atrium is moderately dilated with an "
        "ejection fraction of {ef}% > left atrial enlargement",
        "diltiazem drip; metoprolol tartrate; apixaban",
        "Rate was controlled on a diltiazem drip and transitioned to metoprolol; Apixaban was "
        "started for stroke prevention; {He} underwent TEE and cardioversion to sinus rhythm; "
        "Magnesium and potassium were repleted", "apixaban; metoprolol tartrate",
        "take apixaban twice daily to prevent stroke",
    ),
)  # fmt: skip

DAILY = """
[no acute events overnight|NAEO|overnight, no acute events|slept well]; {vitals};
[{pt}|{he}] [reported|c/o|complained of] [mild|ongoing|less|improving] {symptom};
[{he} denied|denies] {negatives}; {lab}[ this morning| on AM labs|]; exam [with|notable for] {exam};
[continued|remained on|cont] {rx}; [PT|physical therapy] [worked with {him}|evaluated {him} and
recommended [home with services|rehab|a rolling walker]]; diet was advanced [to regular|as
tolerated]; {specialist} [followed|saw {him} and recommended continuing {rx}]; {his} {family} was
updated [at bedside|by phone at {phone}]; repeat {study} [showed no interval change|was stable|was
improved]; case management [met with {him}|is arranging home services in {town}]; [Foley was removed
and {he} voided|telemetry without events|IV access was replaced]; {he} [walked in the hallway|was
out of bed to chair|used the incentive spirometer]; [DVT prophylaxis with subcutaneous heparin|
pneumatic compression boots were placed]; [tolerating|ate most of] {his} meals; pain well
controlled; [symptoms|clinically] [improving|better] on {rx}; I/O [balanced|net negative|even]
"""
"""What a day in hospital brings to anyone."""

COMPLICATIONS = """
developed delirium, which cleared with reorientation and melatonin; fell without injury and CT head
was negative; developed a urinary tract infection, treated with ceftriaxone for 3 days; had diarrhea
and C. difficile testing was negative; had a fever to 101.4 and repeat blood cultures remained
negative; was hypotensive overnight and responded to a 500 mL bolus of normal saline; developed
hospital-acquired pneumonia, treated with piperacillin-tazobactam for 7 days; had phlebitis at the
IV site, treated with warm compresses; was transfused 1 unit of packed red blood cells for anemia;
developed urinary retention, treated with a Foley catheter and tamsulosin
"""
