"""The regulator's folder: valid by the schemas, true to the passport, and in the way of a promotion while a person has not filled it in."""

import json
import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import Page
from helpers.project import ROOT, Project, commit
from helpers.versions import NAME, artifacts_of, flip, version_of
from jsonschema import Draft202012Validator
from lxml import etree
from ruamel.yaml import YAML

from tasks.registry.base_terms import BaseTerms
from tasks.registry.compliance import evidence as known
from tasks.registry.compliance import form
from tasks.registry.compliance.chai import NAMESPACE, TO_FILL_IN
from tasks.registry.compliance.changes import change_log
from tasks.registry.compliance.document import schema
from tasks.registry.compliance.evidence import Compared, Evidence
from tasks.registry.compliance.hazards import HAZARDS, assessed
from tasks.registry.compliance.names import CARD, DOCUMENT, PAGE, SCHEMA
from tasks.registry.params import RegisterParams
from tasks.runtime.digests import sha256
from tasks.runtime.params import read_section

Json = dict[str, Any]
SIGNATURES = "http://www.w3.org/2000/09/xmldsig#"


def filled(**others: str) -> str:
    """The form with something in every field."""
    content = YAML(typ="safe").load(form.empty_form())
    content |= {key: f"Stated: {key} < & >" for key, text in content.items() if text == ""}
    content["hazards"] = {name: {key: f"Stated: {key}" for key in keys} for name, keys in content["hazards"].items()}
    return json.dumps(content | others)  # JSON is YAML


def registry(project: Project, *command: str, check: bool = True) -> str:
    result = project.run(sys.executable, "-m", "tasks.registry", *command, check=check)
    assert (result.returncode == 0) is check, result.stdout
    return result.stdout


def read(path: Path) -> Json:
    content: Json = json.loads(path.read_text(encoding="utf-8"))
    return content


class TestForm:
    def test_the_empty_form_is_one_with_every_field_empty(self) -> None:
        assert form.empty_fields(form.parse(form.empty_form())) == list(form.questions())
        assert form.empty_fields(form.parse("format: 1\nfunding: '  '")) == list(form.questions())

    def test_a_form_that_is_filled_in_has_no_empty_field(self) -> None:
        assert form.empty_fields(form.parse(filled())) == []
        assert form.empty_fields(form.parse(filled(funding=" "))) == ["funding"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("format: 1\nfundign: us", "compliance.fundign: unknown key; did you mean 'funding'?"),
            ("funding: us", "compliance.format: field required"),
            ("format: 2", "compliance.format: input should be 1"),
            ("format: 1\nfunding: 3", "compliance.funding: input should be a valid string"),
            ("format: 1\nhazards: {invented_value: {}}", "there is no hazard 'invented_value'; did you mean 'invented_values'?"),
            ("format: 1\nhazards: {invented_values: {risk: x}}", "compliance.hazards.invented_values.risk: unknown key"),
            ('format: 1\nfunding: "a\\x07b"', "compliance.funding: value error, it has a control character"),
            (f"format: 1\nfunding: {'x' * 20_001}", "it has more than 20,000 characters"),
            ("format: 1\nfunding: [", "compliance.yaml is not YAML: see line"),
            ("", "compliance.yaml: compliance: input should be"),
        ],
    )
    def test_a_wrong_form_is_named(self, text: str, message: str) -> None:
        with pytest.raises(ValueError, match=r"compliance\.yaml") as error:
            form.parse(text)
        assert message in str(error.value)


def test_the_default_params_demand_no_form_and_keep_their_digest() -> None:
    params = read_section("register", RegisterParams, ROOT / "params.yaml")
    assert params.compliance == "none" and "compliance" not in params.model_dump_json()
    demanding = RegisterParams.model_validate(params.model_dump() | {"compliance": "required"})
    assert '"compliance":"required"' in demanding.model_dump_json()


TERMS = BaseTerms("a base", "a licence", "none", "other")


def passport(
    *, raw: dict[str, str], public: Sequence[str] = (), params: Json | None = None, damage: Sequence[Json] = (), commit: str = "a"
) -> Json:
    """What sentences and changes are made from, of a passport."""
    row = {"metric": "hallucinated", "split": "test", "items": 12}
    row |= {whose: {"value": 0.25, "low": 0.125, "high": 0.5} for whose in ("base", "tuned", "change")}
    return {
        "version": {"name": NAME, "number": 2, "made": "2026-11-28T00:00:00+00:00"},
        "code": {"commit": commit, "dirty": "false"},
        "corpus": [{"path": path, "licence": "MIT", "public": True} for path in public],
        "trees": {"data": {"dvc": "d", "files": raw}, "artifacts/model": {"dvc": "m", "files": {}}},
        "gates": {},
        "deidentification": {"recall": [], "damage": list(damage)},
        "decision": {"verdict": "better", "reasons": ["It is."], "table": [row]},
        "stages": {"preprocess": {"params": params or {}, "metrics": {}}},
    }


def evidence_of(document: Json, *, before: Json | None = None, gate: Json | None = None) -> Evidence:
    return Evidence(document, TERMS, [], Compared(1, before) if before else None, gate or {})


class TestEvidence:
    def test_the_change_log_counts_what_may_be_somebodys_and_names_the_rest(self) -> None:
        before = passport(raw={"Smith.txt": "1", "terms.obo": "1"}, params={"withdrawn": [], "seed": 1, "source": "/home/smith/base"})
        now = passport(
            raw={"Jones.txt": "2", "terms.obo": "2"},
            public=["terms.obo"],
            params={"withdrawn": ["id-7"], "seed": 1, "source": "/home/jones/tuned"},
            commit="b",
        )
        changes = {change.subject: (change.before, change.now) for change in change_log(evidence_of(now, before=before)).changes}
        assert changes == {
            "code": ("a", "b"),
            "params: preprocess.source": ("base", "tuned"),
            "params: preprocess.withdrawn": ("0 entries", "1 entries"),
            "raw file terms.obo": ("1", "2"),
            "raw files": ("2", "2; 2 others were added, changed or removed"),
        }

    def test_without_a_champion_or_its_passport_the_change_log_says_so(self) -> None:
        document = passport(raw={})
        assert change_log(evidence_of(document)).compared_with == "There was no champion to compare with"
        unread = Evidence(document, TERMS, [], Compared(1, None), {})
        assert change_log(unread).compared_with == f"{NAME} version 1, whose passport cannot be read any more"
        assert change_log(unread).changes == []

    def test_a_figure_of_nothing_is_not_measured(self) -> None:
        rows = [
            {"name": "value", "spans": 10, "share": 0.1, "low": 0.02, "high": 0.4},
            {"name": "dose", "spans": 0, "share": 0.0, "low": 0.0, "high": 1.0},
        ]
        assert known.damage(evidence_of(passport(raw={}, damage=rows))) == [
            "Clinical text that the cleaning changes, as a share: value 0.100 (0.020 to 0.400); intervals at 95 %",
            "not measured: changes of dose, of which the corpus has none",
        ]

    def test_the_limits_of_the_gate_stand_against_a_hazard(self) -> None:
        thresholds = [
            {"metric": "hallucinated", "split": "test", "figure": "tuned", "max": 0.1},
            {"metric": "stop", "figure": "tuned", "min": 1},
        ]
        guardrails = [
            {"metric": "hallucinated", "split": "test", "margin": 0.05},
            {"metric": "hallucinated", "margin": 0.2, "unless": "hallucinated"},
        ]
        evidence = evidence_of(passport(raw={}), gate={"thresholds": thresholds, "guardrails": guardrails})
        hazard = next(assessed(evidence, form.statements(form.parse(form.empty_form()))))
        assert hazard.controls == [
            "Gate: extracted values that the note does not state, split test: at most 10.0 %",
            "Gate: extracted values that the note does not state, split test: worse than the champion's by at most 5.0 %",
        ]
        assert [(figure.value, figure.low, figure.high, figure.items) for figure in hazard.figures] == [(0.25, 0.125, 0.5, 12)]


def chai_schema() -> etree.XMLSchema:
    """CHAI's own schema, with a stand-in for the signature that it imports from elsewhere, which no card here has."""

    class Offline(etree.Resolver):  # type: ignore[misc]
        def resolve(self, url: str, _: str, context: Any) -> Any:
            return self.resolve_string(
                f'<xs:schema xmlns:xs="http://www.w3.org/2001/XMLSchema" targetNamespace="{SIGNATURES}"><xs:element name="Signature"/>'
                "</xs:schema>",
                context,
                base_url=url,
            )

    parser = etree.XMLParser(no_network=True)
    parser.resolvers.add(Offline())
    path = Path(__file__).with_name("chai") / "schema.xsd"
    return etree.XMLSchema(etree.fromstring(path.read_bytes(), parser))


@pytest.mark.slow
class TestFolder:
    @pytest.fixture(scope="class")
    def folder(self, finished: Project) -> Path:
        return artifacts_of(finished) / "compliance"

    @pytest.fixture(scope="class")
    def filled_in(self, finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """The folder of the same version, with a form that a person filled in."""
        folder = tmp_path_factory.mktemp("filled") / "compliance"
        (finished.path / form.FORM).write_text(filled(), encoding="utf-8")
        try:
            registry(finished, "compliance", "champion", str(folder))
        finally:
            (finished.path / form.FORM).unlink()
        return folder

    def test_its_json_is_valid_by_its_schema_and_a_broken_one_is_not(self, folder: Path, filled_in: Path) -> None:
        assert read(folder / SCHEMA) == schema()
        Draft202012Validator.check_schema(schema())
        validator = Draft202012Validator(schema())
        for document in (read(folder / DOCUMENT), read(filled_in / DOCUMENT)):
            validator.validate(document)
            for broken in (
                document | {"hti_1": document["hti_1"][:30]},
                document | {"form": "0"},
                document | {"further": 1},
                document | {"hazards": [document["hazards"][0] | {"state": "fine"}]},
            ):
                assert not validator.is_valid(broken)

    def test_chais_schema_accepts_the_card_and_no_broken_one(self, folder: Path, filled_in: Path) -> None:
        accepted = chai_schema()
        for path in (folder / CARD, filled_in / CARD):
            card = etree.fromstring(path.read_bytes())
            accepted.assertValid(card)
            card.remove(card.find(f"{{{NAMESPACE}}}Warnings"))
            assert not accepted.validate(card)

    def test_the_card_is_the_same_as_xml_and_as_json(self, filled_in: Path) -> None:
        document = read(filled_in / DOCUMENT)["chai_applied_model_card"]
        card = etree.fromstring((filled_in / CARD).read_bytes())
        texts = {element.tag.partition("}")[2]: element.text for element in card.iter() if not len(element)}
        assert texts["ModelDeveloper"] == document["BasicInfo"]["ModelDeveloper"] == "Stated: developer_name < & >"
        assert texts["ReleaseVersion"] == "1"

    def test_an_empty_form_leaves_everything_to_fill_in_and_a_full_one_nothing(self, folder: Path, filled_in: Path) -> None:
        empty, full = read(folder / DOCUMENT), read(filled_in / DOCUMENT)
        assert empty["to_be_filled_in"] == list(form.questions()) and full["to_be_filled_in"] == []
        assert {entry["state"] for entry in empty["hti_1"] if entry["statements"]} == {"to be filled in"}
        assert {entry["state"] for entry in full["hti_1"]} == {"stated"}
        assert {hazard["state"] for hazard in full["hazards"]} == {"stated"}
        assert TO_FILL_IN in (folder / CARD).read_text() and TO_FILL_IN not in (filled_in / CARD).read_text()

    def test_every_field_of_the_form_is_an_answer_somewhere(self, filled_in: Path) -> None:
        text = json.dumps({name: read(filled_in / DOCUMENT)[name] for name in ("hti_1", "eu_ai_act_annex_iv", "chai_applied_model_card")})
        missing = [key for key in form.questions() if "." not in key and f"Stated: {key} <" not in text]
        assert not missing

    def test_what_was_measured_is_the_passports_and_the_rest_says_so(self, finished: Project, folder: Path) -> None:
        rows = {(row["metric"], row["split"]): row for row in read(artifacts_of(finished) / "passport.json")["decision"]["table"]}
        hazards = {hazard["id"]: hazard for hazard in read(folder / DOCUMENT)["hazards"]}
        assert hazards.keys() == HAZARDS.keys()
        for name, hazard in hazards.items():
            measured = [key for key in HAZARDS[name].metrics if key in rows]
            assert [(figure["metric"], figure["split"]) for figure in hazard["figures"]] == measured
            for figure in hazard["figures"]:
                row = rows[figure["metric"], figure["split"]]
                assert (figure["items"], figure["value"]) == (row["items"], row["tuned"]["value"])
        assert hazards["memorized_text"]["measured"] and hazards["missed_identifiers"]["measured"]
        # This corpus has no extraction tasks, and nobody knows of groups of patients.
        assert not hazards["invented_values"]["measured"] and not hazards["unequal_performance"]["measured"]
        assert all(sentence.startswith("not measured: ") for sentence in hazards["invented_values"]["evidence"])

    def test_it_has_the_digests_of_its_files(self, folder: Path) -> None:
        files = read(folder / DOCUMENT)["files"]
        assert {path.name for path in folder.iterdir()} == {*files, DOCUMENT}
        assert files == {name: sha256(folder / name) for name in files}
        assert sha256(folder / "compliance.yaml") == read(folder / DOCUMENT)["form"]

    def test_a_version_from_before_it_gets_the_same_folder_on_demand(self, finished: Project, folder: Path, tmp_path: Path) -> None:
        printed = registry(finished, "compliance", "1", str(tmp_path / "again"))
        assert len(printed.split()) == 5
        for path in folder.iterdir():
            assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes(), path.name
        assert "exists; give a name that does not" in registry(finished, "compliance", "1", str(tmp_path / "again"), check=False)

    def test_it_says_nothing_that_a_record_says(self, finished: Project, folder: Path) -> None:
        documents = [json.loads(line) for line in (finished.path / "artifacts/documents/train.jsonl").read_text().splitlines()]
        texts = [path.read_text(encoding="utf-8") for path in folder.iterdir()]
        assert not [document["id"] for document in documents if any(document["answer"] in text for text in texts)]

    @pytest.mark.system
    def test_the_page_shows_all_of_it_in_a_browser(self, folder: Path, filled_in: Path, devtools: int) -> None:
        for path, empty in ((folder, len(form.questions())), (filled_in, 0)):
            address = (path / PAGE).as_uri()
            for width in (1100, 390):
                page = Page(devtools, width=width)
                page.open(address)
                assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
                shown = page.evaluate("document.body.innerText")
                assert (f"{empty} of {len(form.questions())} fields are still to be filled in" in shown) is bool(empty)
                assert ("Stated: funding < & >" in shown) is not bool(empty)
                assert "not measured: performance by group of patients" in shown
                assert not page.complaints and page.requests == [address]


@pytest.mark.slow
def test_an_empty_form_blocks_a_promotion_and_a_full_one_does_not(trained: Project) -> None:
    trained.set_params("register", compliance="required")
    commit(trained)
    trained.run("dvc", "repro")
    outcome = read(trained.path / "artifacts/registration.json")["decision"]
    assert (outcome["verdict"], outcome["outcome"]) == ("first", "waits for compliance.yaml")
    refused = registry(trained, "promote", "1", "--by", "A. Person", check=False)
    assert "leaves 86 fields empty: responsible, developer_name" in refused and "and 81 more" in refused
    (trained.path / form.FORM).write_text(filled(consent=""), encoding="utf-8")
    assert "leaves 1 fields empty: consent" in registry(trained, "promote", "1", "--by", "A. Person", check=False)
    assert not list(artifacts_of(trained).glob("compliance-*"))

    (trained.path / form.FORM).write_text(filled(), encoding="utf-8")
    assert "version 1 is champion" in registry(trained, "promote", "1", "--by", "A. Person")
    folder = artifacts_of(trained) / "compliance-2"
    assert read(folder / DOCUMENT)["to_be_filled_in"] == []
    assert version_of(trained).tags["compliance.2.sha256"] == sha256(folder / DOCUMENT)
    assert "compliance,,1," in registry(trained, "audit", "export")

    # What came later is verified too, file by file.
    assert "0 differ" in registry(trained, "verify", f"{NAME}/1")
    for path in sorted(folder.iterdir()):
        flip(path)
        assert f"differs  {NAME}/1/compliance-2/{path.name}" in registry(trained, "verify", f"{NAME}/1", check=False)
        flip(path)
    (folder / "more").touch()
    assert f"differs  {NAME}/1/compliance-2/more" in registry(trained, "verify", f"{NAME}/1", check=False)
    (folder / "more").unlink()

    # The next version has the form from the start, says what changed, and is promoted by the gate alone.
    trained.set_params("finetune", steps=40)
    commit(trained)
    trained.run("dvc", "repro")
    assert read(trained.path / "artifacts/registration.json")["decision"]["outcome"] == "promoted"
    document = read(artifacts_of(trained, "2") / "compliance" / DOCUMENT)
    assert document["to_be_filled_in"] == [] and not list(artifacts_of(trained, "2").glob("compliance-*"))
    log = document["change_log"]
    assert log["compared_with"] == f"{NAME} version 1" and log["scores"]
    changes = {change["subject"]: (change["before"], change["now"]) for change in log["changes"]}
    assert changes["params: finetune.steps"] == ("6", "40") and changes.keys() <= {"code", "params: finetune.steps"}


@pytest.mark.slow
def test_a_version_without_the_folder_gets_one_before_it_is_promoted(copied: Project) -> None:
    """As of a version that was registered before there was any."""
    project = copied
    document = artifacts_of(project) / "passport.json"
    stated = read(document)
    stated["artifacts"] = {name: digest for name, digest in stated["artifacts"].items() if not name.startswith("compliance/")}
    shutil.rmtree(document.parent / "compliance")
    for path in (document, document.parent / "checkpoint" / "passport.json"):
        path.write_text(json.dumps(stated), encoding="utf-8")
    tag = (
        "from mlflow import MlflowClient; import sys; client = MlflowClient(tracking_uri='sqlite:///mlflow.db');"
        f"client.set_model_version_tag('{NAME}', '1', 'passport.sha256', sys.argv[1]);"
        f"client.delete_model_version_tag('{NAME}', '1', 'compliance.form')"
    )
    project.run(sys.executable, "-c", tag, sha256(document))
    assert "0 differ" in registry(project, "verify", f"{NAME}/1")
    project.set_params("register", compliance="required")
    (project.path / form.FORM).write_text(filled(), encoding="utf-8")
    registry(project, "promote", "1", "--by", "A. Person")
    assert (artifacts_of(project) / "compliance-2" / PAGE).exists()
    assert "0 differ" in registry(project, "verify", f"{NAME}/1")
    assert re.search(r"compliance +version 1", registry(project, "list"))
