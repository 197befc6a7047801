"""Question templates that rephrase a question, by its sort; the name that it is about stays or becomes another of its names."""

import re

from tasks.corpus.documents import Document

# {topic} is the name that the question is about. First the categories of the default corpus.
BY_CATEGORY = {
    "hpo-definition": ("What does {topic} mean?", "Can you explain what {topic} is?", "Define {topic}.", "What is meant by {topic}?"),
    "hpo-synonyms": ("What is {topic} also called?", "Which synonyms are there for {topic}?", "How else is {topic} named?"),
    "hpo-kinds": ("Which forms of {topic} are known?", "List the kinds of {topic}.", "What does {topic} comprise?"),
    "disease-signs": (
        "What are the signs and symptoms of {topic}?",
        "How does {topic} present?",
        "What are the clinical features of {topic}?",
    ),
    "disease-course": ("What is the inheritance and onset of {topic}?", "How is {topic} passed on, and at what age does it start?"),
    "icd10cm": ("What is the ICD-10-CM code for {topic}?", "How is {topic} coded in ICD-10-CM?", "Give the ICD-10-CM code of {topic}."),
}
# Questions of tables and MedQuAD, by what they ask: its 16 types, each with its phrasings there and templates that rephrase it. The more
# special first; "What is …" last, and not for "What is the dose of …", which asks for something else than what it is.
_T = r"(?P<topic>[^?]+?)"
BY_QUESTION = tuple(
    (re.compile(rf"{phrasing}\s*\??", re.I), templates)
    for phrasings, templates in (
        (
            rf"What are the (?:signs and )?symptoms of {_T}|What symptoms (?:does|do) {_T} cause",
            ("How does {topic} present?", "What are the signs of {topic}?", "Which symptoms are seen in {topic}?"),
        ),
        (
            rf"What are the treatments for {_T}|How (?:is|are) {_T} treated|How to treat {_T}",
            ("How is {topic} treated?", "Which treatments are there for {topic}?", "What can be done about {topic}?"),
        ),
        (rf"Is {_T} inherited|How is {_T} inherited", ("Can {topic} be inherited?", "Is {topic} passed on in families?")),
        (rf"How many people are affected by {_T}|How common is {_T}", ("How common is {topic}?", "How often does {topic} occur?")),
        (
            rf"What are the genetic changes related to {_T}",
            ("Which genetic changes are related to {topic}?", "Which changes in genes go with {topic}?"),
        ),
        (
            rf"What causes {_T}|What are the causes of {_T}",
            ("What are the causes of {topic}?", "Why does {topic} occur?", "What leads to {topic}?"),
        ),
        (
            rf"How to diagnose {_T}|How is {_T} diagnosed",
            ("How is {topic} diagnosed?", "Which exams and tests are made for {topic}?"),
        ),
        (
            rf"what research (?:\(or clinical trials\) )?is being done for {_T}",
            ("Which research is done on {topic}?", "Are there studies of {topic}?"),
        ),
        (rf"What is the outlook for {_T}", ("What is the prognosis of {topic}?", "What can people with {topic} expect?")),
        (rf"Who is at risk for {_T}", ("Who may get {topic}?", "Which people have a risk of {topic}?")),
        (rf"What to do for {_T}", ("What should be considered with {topic}?", "What helps people with {topic}?")),
        (rf"How to prevent {_T}", ("How can {topic} be prevented?", "What prevents {topic}?")),
        (rf"What are the stages of {_T}", ("Which stages does {topic} have?", "How is {topic} staged?")),
        (rf"What are the complications of {_T}", ("Which complications does {topic} have?", "What complications can {topic} lead to?")),
        (
            rf"Do you have information about {_T}|Where to find support for people with {_T}",
            ("What is there to know about {topic}?", "Can you tell me about {topic}?"),
        ),
        (
            r"What (?:is \(are\)|is|are) (?P<topic>(?!the )[^?]+?)",
            ("Can you explain {topic}?", "What does {topic} mean?", "What do you know about {topic}?"),
        ),
    )
    for phrasing in re.split(r"\|(?=(?:What|Where|How) )", phrasings)
)


def question_templates(document: Document) -> tuple[tuple[str, ...], str]:
    """Templates with ``{topic}`` that rephrase the question, and its topic; none for a question of another sort."""
    if document.category in BY_CATEGORY:
        return BY_CATEGORY[document.category], document.topic
    for pattern, templates in BY_QUESTION:
        if match := pattern.fullmatch(document.question):
            return templates, match["topic"]
    return (), ""


def other_names(document: Document) -> list[str]:
    """Names by which the topic may be asked for: none for a question about its names, nor one that the answer gives away."""
    if document.category == "hpo-synonyms":
        return []
    return [alias for alias in document.aliases if alias.lower() not in document.answer.lower()]
