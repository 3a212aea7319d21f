# SPDX-License-Identifier: Apache-2.0
"""The sections of a synthetic note, one method each; `notes` leaves out those that come empty."""

from bcmb_jax.data.synthetic import words
from bcmb_jax.data.synthetic.words import TABLES
from bcmb_jax.data.synthetic.writer import Writer


class Sections(Writer):
    """Writer of single sections."""

    def complaint(self) -> str:
        """Write the chief complaint."""
        return self.say("{complaint}").capitalize()

    def reason(self) -> str:
        """Write the question to a consultant."""
        return self.sentences(
            f"[We were asked by Dr. {self.patient.doctors[0].split()[-1]} to [see|evaluate] {{pt}} "
            "for {dx}|{dx}|Consult for [management|evaluation] of {dx}]"
        )

    def hpi(self) -> str:
        """Write the history of the present illness."""
        story = self.sentences(
            "{title} {last} is {aged} {gender} with [a history of|PMH of|h/o|a past medical "
            "history significant for] {pmh} who [presents|presented|comes in] [to the ED|to the "
            "emergency department|] with {symptoms}[ for {duration}| x {duration}|]",
            "[{His} symptoms|This|The {symptom}] [began|started] {duration} [ago|PTA|prior to "
            "admission] and [progressively worsened|got worse|became constant|waxed and waned]",
            "[{He} also [reports|endorses|notes] {symptom}|]",
            "{He} [denies|denied|has had no] {negatives}",
            "[{He} was brought in by {his} {family}|{His} {family} called an ambulance|{He} has "
            "had no sick contacts or recent travel|{He} took {his} home medications this morning|]",
        )
        arrival = self.on_day(
            0,
            "[In the ED|On arrival|In the emergency department], [vitals were|VS] {vitals}",
            "[Labs were|Labs|Laboratory data were] [notable|significant|remarkable] for {notable}",
            "{result}",
            "{He} [received|was given|was started on] {rx} and was admitted [to the floor|to the "
            "{specialist} service|to medicine] for [further management of |]{dx}",
        )
        return story + self.draw.pick(("\n\n", " ")) + arrival

    def pmh(self) -> str:
        """Write the past medical history."""
        names = [self.term(condition.names) for condition in self.patient.chronic]
        return self.sentences(self.listing(names)) if self.prose else self.lines(names)

    def home(self) -> str:
        """List the drugs taken at home."""
        return self.orders(self.patient.home)

    def allergies(self) -> str:
        """List substances and reactions."""
        known = [allergy.split(" > ") for allergy in self.patient.allergies]
        if not known:
            return self.say("[NKDA|No known drug allergies|None]")
        return ", ".join(f"{substance} ({reaction})" for substance, reaction in known)

    def social(self) -> str:
        """Write the social history."""
        return self.sentences(
            "[Lives with {his} {family}|Lives in {town} with {his} {family}|Lives at {street} in "
            "{town}]", "[Occupation: {job}|]", "{smoking}", "{alcohol}",
            "[No illicit drugs|Denies drug use|]", "[Contact: {family}, {phone}|]",
        )  # fmt: skip

    def ros(self) -> str:
        """Write the review of systems."""
        return self.sentences("[Positive for|+] {symptoms}", "[Negative for|No] {negatives}")

    def subjective(self) -> str:
        """Write what the patient reports on a day."""
        return self.sentences(*self.draw.some(TABLES["daily"], 2, 5))

    def exam(self) -> str:
        """Write vital signs and examined systems."""
        findings = []
        for system, normal in words.SYSTEMS.items():
            ill = system == self.patient.problem.system and self.day < self.patient.days
            if ill or self.draw.chance(0.6):
                findings.append(f"{system}: {'{exam}' if ill else self.draw.pick(normal)}")
        vitals = self.say("[Vitals|VS|Vital signs]: {vitals}")
        listed = (self.sentences(*findings),) if self.prose else map(self.say, findings)
        return "\n".join((vitals, *listed))

    def labs(self) -> str:
        """Write laboratory values of one or more days."""
        if self.prose:
            return self.sentences("{panel}")
        days = sorted({0, self.day // 2, self.day}) if self.draw.chance(0.5) else [self.day]
        return "\n".join(self.on_day(day, "{today}: {panel}") for day in days)

    def imaging(self) -> str:
        """Write one line for each imaging study."""
        return "\n".join(
            self.say(f"{study}[ ({{admitted}})|]: {self.sentences(finding)}")
            for study, finding, _ in self.patient.problem.imaging
        )

    def procedure(self) -> str:
        """Name the procedure, if there was one."""
        done = self.patient.problem.procedure
        return self.say(f"{done}[ ({{admitted}})|]") if done else ""

    def course(self) -> str:
        """Write the hospital course, day by day in a long stay."""
        patient, draw = self.patient, self.draw
        events = list(patient.problem.course)
        opening = self.on_day(
            0,
            "[{title} {last}|The patient|{aged} {gender} with {pmh}] was admitted [with|for] {dx}",
            "{He} was [started on|treated with|given] {rx}",
            "[{specialist} was consulted|{specialist} followed the patient|]",
        )
        if patient.days < 5 and draw.chance(0.7):
            return f"{opening} {self.sentences(*events)}"
        days = []
        for day in range(patient.days):
            phrases = draw.some(TABLES["daily"], 2, 7)
            if events and draw.chance(0.5):
                phrases.insert(0, events.pop(0))
            if day > 4 and draw.chance(0.12):
                phrases.append("{he} " + draw.pick(TABLES["complications"]))
            text = self.on_day(day, *phrases)
            days.append(
                self.on_day(day, "[HD {hd}|Hospital day {hd}] ({today})")[:-1] + f": {text}"
            )
        return "\n".join([opening, *days, self.chronic_plans()])

    def chronic_plans(self) -> str:
        """Write one line for each chronic condition, with its drugs."""
        lines = []
        for condition in self.patient.chronic:
            orders = [o for o in self.patient.home if o.reason == condition.names[0]]
            given = self.listing([self.order(order) for order in orders])
            plan = f"[continue|continued|cont|on] [home |]{given}" if given else "stable"
            status = f"[, {condition.status}|. {self.sentences(condition.status)}|]"
            lines.append(self.say(f"# {self.term(condition.names)}: {plan}{status}"))
        return "\n".join(lines)

    def ed_course(self) -> str:
        """Write the course in the emergency department."""
        return self.sentences(
            "{aged} {gender} with {pmh} [presenting|who presents] with {symptoms}",
            "[Exam|Examination] [notable for|with|showed] {exam}",
            "[Labs|Laboratory data] [showed|notable for|with] {notable}", "{result}",
            "[Presentation is|Findings are|This is] [most |]consistent with {dx}",
            "[Given|Received|Treated with] {rx}[ with improvement|]",
            "[{specialist} was consulted and recommended admission|Discussed with {specialist}|]",
            "[Disposition: admit to {specialist}|Admitted in stable condition|Will be admitted for "
            "{dx}]",
        )  # fmt: skip

    def plan(self) -> str:
        """Write assessment and plan."""
        days = f"[, now HD {self.day + 1}|, hospital day {self.day + 1}|]"
        summary = self.sentences(
            f"{{aged}} {{gender}} with {{pmh}} [admitted with|here with|p/w] {{dx}}{days}",
            "[Clinically improving|Improving|Remains stable|]",
        )
        events = self.patient.problem.course if self.day else []
        main = self.say("# {dx}: ") + self.sentences(
            "[Continue|Cont] {rx}", "[{notable}|]",
            *self.draw.some(events, 1, 2),
            "[{specialist} following|Appreciate {specialist} recs|Trend labs|]",
        )  # fmt: skip
        last = self.say("[# [PPx|Prophylaxis]: [SQH|subcutaneous heparin|pneumatic boots]\n|]")
        last += self.say(
            "[# [Dispo|Disposition]: [home|rehab|pending PT]|# Code status: full code|]"
        )
        return "\n".join((summary, main, self.chronic_plans(), last)).rstrip()

    def recommendations(self) -> str:
        """Write a consultant's opinion and advice."""
        opinion = self.sentences(
            "{aged} {gender} with {pmh} [who presented|presenting|admitted] with {symptoms}, [most "
            "|]consistent with {dx}",
            "{result}", "[This is supported by|Labs notable for] {notable}",
        )  # fmt: skip
        advice = [
            "[Continue|Agree with|Recommend] " + self.order(o) for o in self.patient.treatment
        ]
        advice += self.draw.some(
            ("[Trend|Follow] {lab}", "[Repeat|Obtain] {study}[ if symptoms worsen|]",
             "[At discharge|On discharge], " + self.patient.problem.advice,
             "[Will follow|We will continue to follow|Please call with questions]"), 1, 3,
        )  # fmt: skip
        return f"{opinion}\n{self.lines(advice)}"

    def discharge(self) -> str:
        """List the drugs at discharge, new ones first."""
        new = self.patient.discharge
        return self.orders((*new, *self.patient.home), new)

    def condition(self) -> str:
        """Write the condition at discharge."""
        return self.sentences(
            "[Stable|Good|Improved|Fair]",
            "[Alert and oriented|Mental status: clear and coherent|]",
            "[Ambulatory|Walking independently|Ambulating with a walker|]", "[{vitals}|]",
        )  # fmt: skip

    def instructions(self) -> str:
        """Write the instructions to the patient."""
        return self.sentences(
            "[Dear {title} {last}, you were [admitted|in the hospital] for {dx}|You were treated "
            "for {dx}]",
            "[You were given|We treated you with] {rx}", "[Please|] " + self.patient.problem.advice,
            "[Return to the ED|Call your doctor|Call 911] [for|if you have] {symptom}",
        )  # fmt: skip

    def followup(self) -> str:
        """List the appointments after discharge."""
        _, consultant, primary = self.patient.doctors
        weeks = self.patient.days + 7 * self.draw.between(1, 4)
        visits = (f"Dr. {primary}[ (PCP)|, primary care,] on {self.date(self.patient.days + 7)}",
                  f"Dr. {consultant} ({{specialist}}) on {self.date(weeks)}")  # fmt: skip
        return self.lines(self.draw.some(visits, 2, 2))

    def radiology(self) -> str:
        """Write a radiology report."""
        study, finding, impression = self.draw.pick(self.patient.problem.imaging)
        modality = words.MODALITIES[study]
        alike = {word for word in finding.lower().split() if len(word) > 6}
        normal = [f for f in modality.normal if not alike & set(f.lower().split())]
        others = self.draw.some(normal, 2, len(normal))
        parts = {
            "Exam": f"{modality.exam}",
            "[Indication|Clinical history|History]": "{aged} {gender} with {symptoms}[. Evaluate "
            "for {dx}|, r/o {dx}|]",
            "Comparison": "[None|None available|{admitted}]" if self.day else "None",
            "Technique": modality.technique,
            "Findings": self.sentences(*[finding, *others][:: self.draw.pick((1, 1, -1))]),
            "Impression": self.say(self.draw.pick(("", "1. "))) + self.sentences(impression),
        }
        return "\n\n".join(
            f"{(name.upper() if self.capitals else name)}: {self.say(body)}"
            for name, body in ((self.say(name), body) for name, body in parts.items())
        )

    def operation(self) -> str:
        """Write an operative report."""
        problem = self.patient.problem
        surgeon = self.patient.doctors[1]
        return self.say(
            f"[Preoperative|Pre-op] diagnosis: {{dx}}\n[Postoperative|Post-op] diagnosis: "
            f"[Same|{{dx}}]\nProcedure: {problem.procedure}\nSurgeon: {surgeon}, MD\n"
            "Anesthesia: [general|general endotracheal|MAC]\n[EBL|Estimated blood loss]: "
            "[minimal|{units}0 mL|{number}0 mL]\nComplications: [none|none apparent]\n\n"
        ) + self.sentences(
            "[Indications|Indication]: {aged} {gender} with {symptoms} found to have {dx}",
            "[Risks and benefits were discussed and consent was obtained|Informed consent was "
            "obtained from {pt}]",
            "[{pt} was brought to the operating room|After a time out {he} was placed supine] and "
            "[anesthesia was induced|prepped and draped in sterile fashion]",
            *problem.operation,
            "[All counts were correct|Hemostasis was confirmed]",
            "{pt} [tolerated the procedure well|was taken to recovery in stable condition]",
        )

    def nursing(self) -> str:
        """Write a nursing note."""
        return self.sentences(
            "[Received {pt} from ED with {dx}|{aged} {gender} with {dx}|{pt} here with {symptom}|]",
            *self.draw.some(TABLES["daily"], 3, 6),
            "[Will continue to monitor|Dr. {attending} aware|Call light within reach|]",
        )
