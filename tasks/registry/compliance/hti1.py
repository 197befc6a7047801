"""The 31 source attributes of predictive decision support interventions, 45 CFR 170.315(b)(11)(iv)(B) (HTI-1, 89 FR 1192).

The titles are the regulation's, a work of the United States' government; the ids are its paragraphs below (iv)(B).
"""

from tasks.registry.compliance import evidence as known
from tasks.registry.compliance.entries import Question

# In its words: race, ethnicity, language, sexual orientation, gender identity, sex, date of birth, social determinants, health status.
_VARIABLES = "variables in paragraph (b)(11)(iv)(A)(5)-(13)"

ATTRIBUTES = (
    Question("(1)(i)", "Name and contact information for the intervention developer", keys=("developer_name", "developer_contact")),
    Question("(1)(ii)", "Funding source of the technical implementation for the intervention(s) development", keys=("funding",)),
    Question("(1)(iii)", "Description of value that the intervention produces as an output", (known.output,), ("output_value",)),
    Question(
        "(1)(iv)",
        "Whether the intervention output is a prediction, classification, recommendation, evaluation, analysis, or other type of output",
        (known.architecture, known.output),
    ),
    Question("(2)(i)", "Intended use of the intervention", keys=("intended_use",)),
    Question("(2)(ii)", "Intended patient population(s) for the intervention's use", keys=("patient_population",)),
    Question("(2)(iii)", "Intended user(s)", keys=("intended_users",)),
    Question("(2)(iv)", "Intended decision-making role for which the intervention was designed to be used", keys=("decision_role",)),
    Question(
        "(3)(i)",
        "Description of tasks, situations, or populations where a user is cautioned against applying the intervention",
        (known.limits,),
        ("out_of_scope",),
    ),
    Question(
        "(3)(ii)",
        "Known risks, inappropriate settings, inappropriate uses, or known limitations",
        (known.scores("hallucinated", "test"), known.scores("extraction", "train"), known.recall, known.damage, known.rating),
        ("risks_and_limitations",),
    ),
    Question(
        "(4)(i)",
        "Exclusion and inclusion criteria that influenced the training data set",
        (known.raw_data, known.selection),
        ("data_selection",),
    ),
    Question("(4)(ii)", f"Use of {_VARIABLES} as input features", (known.variables,), ("input_variables",)),
    Question(
        "(4)(iii)", f"Description of demographic representativeness according to {_VARIABLES}", (known.demographics,), ("demographics",)
    ),
    Question("(4)(iv)", "Description of relevance of training data to intended deployed setting", keys=("relevance",)),
    Question(
        "(5)(i)",
        "Description of the approach the intervention developer has taken to ensure that the intervention's output is fair",
        (known.fairness,),
        ("fairness_approach",),
    ),
    Question("(5)(ii)", "Description of approaches to manage, reduce, or eliminate bias", keys=("bias_mitigation",)),
    Question(
        "(6)(i)",
        "Description of the data source, clinical setting, or environment where an intervention's validity and fairness has been assessed, "
        "other than the source of training and testing data",
        (known.external,),
        ("external_data",),
    ),
    Question("(6)(ii)", "Party that conducted the external testing", keys=("external_party",)),
    Question(
        "(6)(iii)",
        f"Description of demographic representativeness of external data according to {_VARIABLES}",
        (known.demographics,),
        ("external_demographics",),
    ),
    Question("(6)(iv)", "Description of external validation process", (known.testing,), ("external_process",)),
    Question(
        "(7)(i)",
        "Validity of intervention in test data derived from the same source as the initial training data",
        (known.all_scores("test"),),
    ),
    Question(
        "(7)(ii)",
        "Fairness of intervention in test data derived from the same source as the initial training data",
        (known.fairness,),
        ("internal_fairness",),
    ),
    Question(
        "(7)(iii)",
        "Validity of intervention in data external to or from a different source than the initial training data",
        (known.all_scores("ood"),),
        ("external_validity",),
    ),
    Question(
        "(7)(iv)",
        "Fairness of intervention in data external to or from a different source than the initial training data",
        (known.fairness,),
        ("external_fairness",),
    ),
    Question(
        "(7)(v)",
        "References to evaluation of use of the intervention on outcomes",
        (known.outcomes,),
        ("outcome_evaluation",),
    ),
    Question(
        "(8)(i)",
        "Description of process and frequency by which the intervention's validity is monitored over time",
        keys=("monitoring_validity",),
    ),
    Question("(8)(ii)", "Validity of intervention in local data", (known.annotation,), ("local_validity",)),
    Question(
        "(8)(iii)",
        "Description of the process and frequency by which the intervention's fairness is monitored over time",
        keys=("monitoring_fairness",),
    ),
    Question("(8)(iv)", "Fairness of intervention in local data", (known.fairness,), ("local_fairness",)),
    Question("(9)(i)", "Description of process and frequency by which the intervention is updated", keys=("update_process",)),
    Question(
        "(9)(ii)",
        "Description of frequency by which the intervention's performance is corrected when risks related to validity and fairness are "
        "identified",
        keys=("correction",),
    ),
)
