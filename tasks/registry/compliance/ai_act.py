"""The nine sections of the technical documentation of Annex IV to Regulation (EU) 2024/1689 (the AI Act), in short words of our own."""

from collections.abc import Mapping

from tasks.registry.compliance import evidence as known
from tasks.registry.compliance.entries import Question

TITLES: Mapping[int, str] = {
    1: "General description of the AI system",
    2: "Elements of the AI system and its development",
    3: "Monitoring, functioning and control",
    4: "Why the performance metrics are appropriate",
    5: "Risk management system (Article 9)",
    6: "Changes through the lifecycle",
    7: "Harmonised standards, or other solutions",
    8: "EU declaration of conformity (Article 47)",
    9: "Performance after it is placed on the market (Article 72)",
}
# By section.
QUESTIONS: Mapping[int, tuple[Question, ...]] = {
    1: (
        Question("1(a)", "Intended purpose, provider, version", (known.identity,), ("intended_use", "developer_name")),
        Question("1(b)", "Hardware and software outside it that it interacts with", keys=("interfaces",)),
        Question("1(c)", "Versions of software, and requirements on updates", (known.software,)),
        Question("1(d)", "Forms in which it is placed on the market or put into service", keys=("forms_of_supply",)),
        Question("1(e)", "Hardware on which it is to run", keys=("target_hardware",)),
        Question("1(f)", "As a component of products: illustrations of these", keys=("illustrations",)),
        Question("1(g)", "User interface for the deployer", keys=("user_interface",)),
        Question("1(h)", "Instructions for use", keys=("how_to_use",)),
    ),
    2: (
        Question("2(a)", "Methods and steps of development, use of pre-trained systems", (known.base_model, known.training)),
        Question(
            "2(b)", "Design: logic, choices, output, trade-offs", (known.architecture, known.output, known.training), ("design_rationale",)
        ),
        Question("2(c)", "Architecture, and computational resources", (known.architecture, known.hardware)),
        Question(
            "2(d)",
            "Data: provenance, scope, selection, labelling, cleaning",
            (known.raw_data, known.selection, known.recall, known.damage),
            ("data_selection",),
        ),
        Question("2(e)", "Human oversight measures that are needed (Article 14)", keys=("human_oversight",)),
        Question("2(f)", "Pre-determined changes", keys=("planned_changes",)),
        Question(
            "2(g)",
            "Validation and testing: data, metrics, discriminatory impacts, dated and signed reports",
            (known.testing, known.splits, known.all_scores("test"), known.all_scores("ood"), known.fairness, known.decision),
            ("responsible",),
        ),
        Question("2(h)", "Cybersecurity measures", (known.integrity,), ("cybersecurity",)),
    ),
    3: (
        Question(
            "3, capabilities",
            "Capabilities and limitations, accuracy for groups of persons and overall",
            (known.all_scores("test"), known.fairness, known.rating),
            ("patient_population",),
        ),
        Question(
            "3, risks",
            "Foreseeable unintended outcomes and sources of risks",
            (known.limits, known.scores("hallucinated", "test"), known.scores("extraction", "train")),
            ("risks_and_limitations", "biases_and_ethics"),
        ),
        Question("3, oversight", "Human oversight, and what helps to interpret outputs", keys=("human_oversight",)),
        Question("3, input", "Specifications on input data", (known.output,), ("input_variables",)),
    ),
    4: (Question("4", TITLES[4], (known.testing,), ("metrics_rationale",)),),
    5: (Question("5", TITLES[5], keys=("risk_management", "other_hazards")),),
    6: (Question("6", TITLES[6], (known.identity, known.decision), ("update_process",)),),
    7: (Question("7", TITLES[7], keys=("standards",)),),
    8: (Question("8", TITLES[8], keys=("declaration",)),),
    9: (Question("9", TITLES[9], keys=("post_market", "monitoring_validity")),),
}
