"""CHAI's Applied Model Card of a version, by its XML schema v0.2 (https://mc.chai.org/v0.2/schema.xsd), and the same as JSON.

Every element that the schema demands is there; one for which a person has not said anything says that it is to be filled in.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

from tasks.evaluation.metrics import METRICS
from tasks.registry.compliance import evidence as known
from tasks.registry.compliance.evidence import NOT_MEASURED, Evidence, Source
from tasks.registry.compliance.form import questions

NAMESPACE = "https://mc.chai.org/v0.2/schema.xsd"
TO_FILL_IN = "To be filled in by a person"
_USEFUL = ("field_f1", "exact", "parsed", "choice", "answer_nll")
_SAFE = ("hallucinated", "extraction", "negation", "dose", "stop", "empty", "repetition")
Json = dict[str, Any]
Writer = Callable[..., str]


def model_card(evidence: Evidence, statements: Mapping[str, str]) -> Json:
    """The card as nested objects under the schema's names, in its order. ``statements``: those of a form, by key."""
    asked, version = questions(), evidence.document["version"]

    def text(*keys: str, sources: Sequence[Source] = ()) -> str:
        """A person's words, then what the passport shows, as Markdown."""
        stated = [statements[key] or f"{TO_FILL_IN}: {asked[key]}" for key in keys]
        return "\n".join([*stated, *(f"* {sentence}" for source in sources for sentence in source(evidence))])

    return {
        "BasicInfo": {
            "ModelName": version["name"],
            "ModelDeveloper": text("developer_name"),
            "DeveloperContact": text("developer_contact"),
        },
        "ReleaseInfo": {
            "ReleaseStage": text("release_stage"),
            "ReleaseDate": version["made"],
            "ReleaseVersion": str(version["number"]),
            "GlobalAvailability": text("availability"),
            "RegulatoryApproval": text("regulatory_status"),
        },
        "ModelSummary": {
            "Summary": text(sources=(known.architecture, known.base_model, known.training, known.limits)),
            "Keywords": {"Keyword": ["language model", "medical text", "fine-tuned"]},
        },
        "UsesAndDirections": {
            "IntendedUseAndWorkflow": text("intended_use", "decision_role"),
            "PrimaryIntendedUsers": text("intended_users"),
            "HowToUse": text("how_to_use"),
            "TargetedPatientPopulation": text("patient_population"),
            "CautionedOutOfScopeSettings": text("out_of_scope", sources=(known.limits,)),
        },
        "Warnings": {
            "KnownRisksAndLimitations": text(
                "risks_and_limitations",
                sources=(
                    known.scores("hallucinated", "test"),
                    known.scores("extraction", "train"),
                    known.recall,
                    known.damage,
                    known.rating,
                ),
            ),
            "KnownBiasesOrEthicalConsiderations": text("biases_and_ethics", sources=(known.fairness,)),
            "ClinicalRiskLevel": text("clinical_risk_level"),
        },
        "TrustIngredients": _trust(text),
        "KeyMetrics": _key_metrics(evidence, text),
        "Resources": {
            "EvaluationReferences": text("outcome_evaluation", sources=(known.outcomes,)),
            "PeerReviewedPublications": text("publications"),
            "PatientConsentOrDisclosure": text("consent"),
        },
        "Bibliography": "",
    }


def _trust(text: Writer) -> Json:
    return {
        "AISystemFacts": {
            "OutcomesAndOutputs": text("output_value", sources=(known.output,)),
            "ModelType": text(sources=(known.architecture,)),
            "FoundationModels": text(sources=(known.base_model,)),
            "InputDataSource": text("interfaces"),
            "OutputAndInputDataTypes": text(sources=(known.output,)),
            "DevelopmentDataCharacterization": text("data_selection", "demographics", sources=(known.raw_data, known.splits)),
            "BiasMitigationApproaches": text("bias_mitigation", sources=(known.fairness,)),
            "OngoingMaintenance": text("monitoring_validity", "update_process", "correction"),
            "Security": text("cybersecurity", sources=(known.integrity,)),
            "Transparency": text(sources=(known.software,)),
        },
        "TransparencyInformation": {
            "FundingSource": text("funding"),
            "ThirdPartyInformation": text("third_parties"),
            "StakeholdersConsulted": text("stakeholders"),
        },
    }


def _key_metrics(evidence: Evidence, text: Writer) -> Json:
    def principle(goal: str, metrics: Sequence[str], key: str, *sources: Source) -> Json:
        return {
            "MetricGoal": goal,
            "Results": {"MetricResult": list(_results(evidence, metrics)) or [{"Label": goal, "ValueJson": json.dumps(_NOTHING)}]},
            "Interpretation": text(key, sources=sources),
            "TestType": "Internal evaluation by the pipeline that trained the model" if metrics else NOT_MEASURED,
            "TestingDataDescription": text(sources=(known.splits,) if metrics else (known.fairness,)),
            "ValidationProcessAndJustification": text(sources=(known.testing,) if metrics else (known.fairness,)),
        }

    return {
        "UsefulnessUsabilityEfficacy": principle("How often answers and extracted values are right", _USEFUL, "metrics_rationale"),
        "FairnessEquity": principle("Whether it serves groups of patients equally", (), "internal_fairness", known.fairness),
        "SafetyReliability": principle("How often it invents, memorizes or fails", _SAFE, "metrics_rationale", known.decision),
    }


_NOTHING = {"kind": NOT_MEASURED}


def _results(evidence: Evidence, metrics: Sequence[str]) -> Iterator[Json]:
    """The figures in the form that CHAI's examples have for an estimate with its interval."""
    for (metric, split), row in evidence.rows.items():
        if metric in metrics:
            tuned, unit = row["tuned"], METRICS[metric].unit
            value = {"kind": "estimate_ci", "estimate": tuned["value"], "lower": tuned["low"], "upper": tuned["high"], "level": 95}
            label = f"{METRICS[metric].label}, split {split}, {row['items']} items"
            yield {"Label": label, "ValueJson": json.dumps(value | {"unit": unit})}


def to_xml(card: Json) -> str:
    """The card as an XML document."""
    root = ElementTree.Element(f"{{{NAMESPACE}}}AppliedModelCard")
    _add(root, card)
    ElementTree.indent(root)
    text = ElementTree.tostring(root, encoding="unicode", default_namespace=NAMESPACE)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{text}\n'


def _add(parent: ElementTree.Element, content: Json) -> None:
    for name, value in content.items():
        for one in value if isinstance(value, list) else [value]:
            child = ElementTree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
            if isinstance(one, dict):
                _add(child, one)
            else:
                child.text = one
