"""Entity models: a folder is read as data or refused in words; what is marked does not depend on the machine; lists and gate stop harm."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.project import ROOT
from helpers.token_classifiers import to_onnx, write_token_classifier
from pydantic import ValidationError
from safetensors.torch import load_file, save_file

from tasks.corpus.deidentify.analyzer import PiiAnalyzer, get_analyzer
from tasks.corpus.deidentify.document import deidentified
from tasks.corpus.deidentify.policy import DeidentifyParams, TokenClassifierParams
from tasks.corpus.deidentify.token_classifier import TokenClassifier
from tasks.corpus.documents import Document, content_id
from tasks.corpus.params import PreprocessParams
from tasks.corpus.report import ShardStats, page
from tasks.params import read_params
from tasks.preprocess import preprocess
from tasks.registry.lineage.tree import deidentification_of
from tasks.registry.package import deidentification
from tasks.runtime.digests import tree_sha256
from tasks.stage import StageResult

DEFAULTS = PreprocessParams.model_validate(read_params(ROOT / "params.yaml")["preprocess"].model_dump())
WORDS = {"quillfeather": "B-PER", "ann": "B-PER", "berg": "I-PER", "##son": "I-PER", "elmbrook": "B-HOSP", "hospital": "I-HOSP"}
TYPES = {"PER": "NAME", "HOSP": "FACILITY"}


@pytest.fixture(autouse=True)
def _in_an_empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    get_analyzer.cache_clear()
    yield
    get_analyzer.cache_clear()


def of_folder(folder: Path, labels: dict[str, str] = TYPES) -> TokenClassifierParams:
    return TokenClassifierParams(path=str(folder), sha256=tree_sha256(folder), labels=labels)


def found_by(folder: Path, text: str, labels: dict[str, str] = TYPES) -> list[tuple[str, str]]:
    return [(text[start:end], type_) for start, end, type_ in TokenClassifier(of_folder(folder, labels)).entities(text)]


def params(model: object, **changes: Any) -> DeidentifyParams:
    given = model.model_dump() if isinstance(model, TokenClassifierParams) else model
    return DeidentifyParams.model_validate(DEFAULTS.deidentify.model_dump() | {"entity_model": given} | changes)


def changed(text: str, model: object, **changes: Any) -> str:
    document = Document(content_id(text, ""), "", text, "s", "k", "g", "1")
    return deidentified(document, params(model, **changes).model_dump_json())[0].answer


def test_a_folder_of_safetensors_and_one_of_onnx_mark_the_same_characters() -> None:
    weights = write_token_classifier(Path("weights"), WORDS)
    text = "Élodie met Ann Bergson — 🙂 and QUILLFEATHER,berg at\u00a0Elmbrook Hospital. Ann,\nAnn" + " of ward 7" * 100 + " berg"
    entities = [
        ("Ann Bergson", "NAME"),
        ("QUILLFEATHER", "NAME"),
        ("berg", "NAME"),
        ("Elmbrook Hospital", "FACILITY"),
        ("Ann", "NAME"),
        ("Ann", "NAME"),
        ("berg", "NAME"),
    ]
    assert found_by(weights, text) == entities
    assert found_by(to_onnx(weights, Path("graph")), text) == entities


def test_a_long_text_is_read_whole_and_each_word_with_text_on_both_sides() -> None:
    text = "ann " * 1000
    assert len(found_by(write_token_classifier(Path("model"), WORDS), text)) == 1000
    # Blind for the four positions at either edge of a window; the first of them is no word.
    assert len(found_by(write_token_classifier(Path("blind"), WORDS, blind=4), text)) in range(993, 998)


@pytest.mark.parametrize(
    ("labels", "entities"),
    [
        (("B-PER", "I-PER", "I-PER"), ["a b c"]),
        (("B-PER", "B-PER", "I-PER"), ["a", "b c"]),
        (("I-PER", "I-PER", "O"), ["a b"]),
        (("S-PER", "S-PER", "O"), ["a", "b"]),
        (("B-PER", "E-PER", "I-PER"), ["a b", "c"]),
        (("U-PER", "B-PER", "L-PER"), ["a", "b c"]),
        (("PER", "PER", "O"), ["a b"]),
        (("B-PER", "I-ORG", "I-PER"), ["a", "c"]),
        (("B-ORG", "I-ORG", "O"), []),
    ],
)
def test_prefixes_of_labels_say_where_an_entity_begins_and_ends(labels: tuple[str, ...], entities: list[str]) -> None:
    words = dict(zip("abc", labels, strict=True)) | {"d": "B-PER", "e": "B-ORG"}
    folder = write_token_classifier(Path("model"), words)
    assert [text for text, _ in found_by(folder, "a b c", {"PER": "NAME"})] == entities


def rewritten(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def without_a_tensor(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({name: tensor for name, tensor in tensors.items() if name != "classifier.weight"}, folder / "model.safetensors")


def with_a_pickle_alone(folder: Path) -> None:
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def as_link(folder: Path) -> None:
    (folder / "model.safetensors").rename("elsewhere")
    (folder / "model.safetensors").symlink_to(Path("elsewhere").absolute())


REFUSALS = {
    "pickle": (with_a_pickle_alone, "has neither of model.safetensors and model.onnx; one of them is read, and no pickle"),
    "both": (lambda f: (f / "model.onnx").write_bytes(b"x"), "has both of model.safetensors and model.onnx"),
    "link": (as_link, "model.safetensors is a link; put the file itself in its place"),
    "linked folder": (lambda f: (f / "more").symlink_to(Path().absolute()), "more is a link"),
    "no tokenizer": (lambda f: (f / "tokenizer.json").unlink(), "has no tokenizer.json"),
    "bad tokenizer": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer.json is not a tokenizer that can be read"),
    "no config": (lambda f: (f / "config.json").unlink(), "has no config.json"),
    "bad config": (lambda f: (f / "config.json").write_text("{"), "config.json is not JSON"),
    "code": (lambda f: rewritten(f, auto_map={"AutoModel": "modeling.Model"}), "names code of its own (auto_map), which is not run"),
    "no labels": (lambda f: rewritten(f, id2label={"1": "O"}), "has no id2label"),
    "few labels": (lambda f: rewritten(f, id2label={"0": "O", "1": "B-PER", "2": "B-HOSP"}), "is not of the model that config.json desc"),
    "unknown kind": (lambda f: rewritten(f, model_type="nothing"), "transformers has no token classifier of model_type 'nothing'"),
    "quantized": (lambda f: rewritten(f, quantization_config={"bits": 4}), "its weights are quantized"),
    "few tensors": (without_a_tensor, "model.safetensors lacks 1 of the model's tensors, classifier.weight among them"),
    "no weights": (lambda f: (f / "model.safetensors").write_bytes(b"12345678"), "is not of the model that config.json describes"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_a_folder_that_is_not_plain_data_of_a_model_is_refused_in_words(case: str) -> None:
    folder = write_token_classifier(Path("model"), WORDS)
    spoil, message = REFUSALS[case]
    spoil(folder)
    digest = "0" * 64 if case == "linked folder" else tree_sha256(folder)
    with pytest.raises(ValueError) as error:
        TokenClassifier(TokenClassifierParams(path="model", sha256=digest, labels=TYPES))
    assert message in str(error.value) and str(error.value).startswith("params.yaml: preprocess.deidentify.entity_model")


def test_a_graph_that_cannot_be_read_is_refused_in_words() -> None:
    folder = to_onnx(write_token_classifier(Path("weights"), WORDS), Path("graph"))
    rewritten(folder, id2label={"0": "O", "1": "B-PER", "2": "B-HOSP"})
    with pytest.raises(ValueError, match=r"scores of shape \(\d+, 5\), not one for each of 3 labels"):
        TokenClassifier(of_folder(folder))
    (folder / "model.onnx").write_bytes(b"nothing")
    with pytest.raises(ValueError, match="onnxruntime does not read model.onnx"):
        TokenClassifier(of_folder(folder))


@pytest.mark.parametrize("digest", ["", "0" * 64])
def test_a_wrong_or_missing_digest_is_refused_and_the_right_one_given(digest: str) -> None:
    folder = write_token_classifier(Path("model"), WORDS)
    with pytest.raises(ValueError, match=f"entity_model.sha256 is not the SHA-256 of model; .*write {tree_sha256(folder)}$"):
        PiiAnalyzer(params({"path": "model", "labels": TYPES, "sha256": digest}))
    PiiAnalyzer(params({"path": "model", "labels": TYPES, "sha256": tree_sha256(folder)}))


def test_labels_that_mean_nothing_are_named_with_what_there_is() -> None:
    folder = write_token_classifier(Path("model"), WORDS)
    with pytest.raises(ValueError, match="labels: 'B-PER' is no label of model; it has HOSP, PER"):
        TokenClassifier(of_folder(folder, {"B-PER": "NAME"}))
    with pytest.raises(ValidationError, match="'PER' is mapped to 'NAMES', which is no type of identifier; there are NAME, FACILITY"):
        of_folder(folder, {"PER": "NAMES"})
    with pytest.raises(ValueError, match="path: nowhere is no folder"):
        PiiAnalyzer(params({"path": "nowhere", "labels": TYPES}))


@pytest.mark.parametrize(("package", "weights"), [("transformers", "model.safetensors"), ("onnxruntime", "model.onnx")])
def test_a_package_that_is_not_installed_is_named(package: str, weights: str) -> None:
    folder = write_token_classifier(Path("model"), WORDS)
    (folder / "model.safetensors").rename(folder / weights)
    script = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from tasks.corpus.deidentify.analyzer import get_analyzer\n"
        f"get_analyzer({params(of_folder(folder)).model_dump_json()!r})"
    )
    result = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)
    assert f"{weights} is read with {package}, which is not installed; 'make setup-dev' installs it" in result.stderr


def test_marks_are_asked_against_clinical_words_first() -> None:
    words = dict.fromkeys(
        "quillfeather wetherbyville lisinopril metoprolol 120 80 10 mg potassium 4 1 / clinic cardiology allergies abdomen 93 45 "
        "03 2019 14 days three march".split(),
        "X",
    )
    folder = write_token_classifier(Path("model"), words)
    text = (
        "ALLERGIES: none\nQuillfeather takes Lisinopril 10 mg. BP 120/80. Potassium 4.1 after three days.\nAbdomen soft.\n"
        "Cardiology Clinic 45. Wetherbyville, and on\n03/14/2019 there were 93."
    )
    kept = (
        "ALLERGIES: none\n{} takes Lisinopril 10 mg. BP 120/80. Potassium 4.1 after three days.\nAbdomen soft.\n"
        "Cardiology Clinic {}. {}, and on\n{} there were {}."
    )
    rules = changed(text, "")
    assert rules == kept.format("Quillfeather", "45", "Wetherbyville", "2019", "93")
    by_type = {type_: changed(text, of_folder(folder, {"X": type_})) for type_ in ("NAME", "FACILITY", "ADDRESS", "MRN", "AGE", "DATE")}
    assert by_type["NAME"] == kept.format("[NAME]", "45", "[NAME]", "2019", "93")
    assert by_type["FACILITY"] == kept.format("[FACILITY]", "45", "[FACILITY]", "2019", "93")
    assert by_type["AGE"] == kept.format("Quillfeather", "45", "Wetherbyville", "2019", "90+")
    assert by_type["MRN"] == kept.format("Quillfeather", "[MRN]", "Wetherbyville", "2019", "[MRN]")
    assert by_type["DATE"] == kept.format("Quillfeather", "[DATE]", "Wetherbyville", "2019", "[DATE]")
    assert changed(text, of_folder(folder, {"X": "NAME"}), policy={"NAME": "keep"}) == rules
    assert changed(text, of_folder(folder, {"X": "NAME"}), allow=("quillfeather", "Wetherbyville")) == rules


def test_a_mark_crosses_no_line() -> None:
    folder = write_token_classifier(Path("model"), {"elmbrook": "HOSP", "wetherbyville": "HOSP"})
    text = "Sent from\nElmbrook\n\nWetherbyville by car"
    assert found_by(folder, text, {"HOSP": "FACILITY"}) == [("Elmbrook\n\nWetherbyville", "FACILITY")]
    assert changed(text, of_folder(folder, {"HOSP": "FACILITY"})) == "Sent from\n[FACILITY]\n\n[FACILITY] by car"


def spacy_package(name: str) -> None:
    """An installed model of spaCy, whose entities are those of its patterns."""
    Path(name).mkdir()
    Path(name, "__init__.py").write_text(
        "import spacy\n__version__ = '1.0'\n"
        "def load(exclude=()):\n"
        "    model = spacy.blank('en')\n"
        "    ruler = model.add_pipe('entity_ruler')\n"
        "    ruler.add_patterns([{'label': 'PERSON', 'pattern': 'Quillfeather'}, {'label': 'DATE', 'pattern': 'now'}])\n"
        "    return model\n"
    )


def test_a_model_of_spacy_marks_names_in_texts_of_any_length(monkeypatch: pytest.MonkeyPatch) -> None:
    spacy_package("spacy_of_patterns")
    monkeypatch.syspath_prepend(str(Path.cwd()))
    with pytest.raises(ValueError, match="must be spacy_of_patterns==1.0, as the result depends on it"):
        PiiAnalyzer(params("spacy_of_patterns==2.0"))
    text = ("so it was Quillfeather again now\n" * 40_000).strip()  # more than spaCy reads at once
    spans = PiiAnalyzer(params("spacy_of_patterns==1.0")).analyze(text, by_rules=False)
    assert len(spans) == 40_000 and {text[span.start : span.end] for span in spans} == {"Quillfeather"}


def test_no_connection_is_opened() -> None:
    weights = write_token_classifier(Path("weights"), WORDS, config={"_name_or_path": "somebody/some-model"})
    folders = [weights, to_onnx(weights, Path("graph"))]
    (weights / "adapter_config.json").write_text('{"base_model_name_or_path": "somebody/some-model"}')
    script = (
        "import sys\n"
        "def refuse(event, _):\n"
        "    if event in ('socket.connect', 'socket.getaddrinfo', 'socket.gethostbyname', 'socket.sendto'): raise SystemExit(event)\n"
        "sys.addaudithook(refuse)\n"
        "from tasks.corpus.deidentify.analyzer import get_analyzer\n"
        f"for given in {[params(of_folder(folder)).model_dump_json() for folder in folders]!r}:\n"
        "    print(get_analyzer(given).analyze('of Quillfeather', by_rules=False)[0].type)\n"
    )
    path = f"{ROOT}:{':'.join(entry for entry in sys.path if entry)}"
    result = subprocess.run([sys.executable, "-c", script], env={"PYTHONPATH": path}, capture_output=True, text=True, check=False)
    assert result.stdout.split() == ["NAME", "NAME"], result.stderr


def run(out: str, model: TokenClassifierParams, **changes: Any) -> StageResult:
    """Notes with a drug that sounds like a name, and with names that no rule sees, through the stage."""
    rows = [{"text": f"Day {n}: glucose 95 mg/dL.\nQuillfeather came; takes Allegra D at visit {n}."} for n in range(60)]
    Path("data").mkdir(exist_ok=True)
    Path("data/notes.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    loose = params(model, min_recall={}, injections=1)
    options = {"validation_share": 0.2, "test_share": 0.2, "near_duplicate": 1.0, "same_answer": 99, "deidentify": loose} | changes
    folder = Path(out)
    folder.mkdir()
    paths = (folder / name for name in ("documents", "report", "rejected.jsonl"))
    return preprocess(Path("data"), *paths, params=DEFAULTS.model_copy(update=options))


@pytest.mark.slow
def test_a_harmful_model_is_refused_with_its_figures(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("WORKERS", "1")
    words = {"allegra": "B-DRUG", "d": "I-DRUG", "lisinopril": "B-DRUG", "metformin": "B-DRUG"}
    model = of_folder(write_token_classifier(Path("model"), words), {"DRUG": "NAME"})
    with pytest.raises(ValueError) as error:
        run("out", model, max_damage={"drug": 0.01})
    message = str(error.value)
    assert "the entity model changes too much of what is clinical, beyond what the rules change: drug 1.0000 (0." in message
    assert "> 0.01 (preprocess.max_damage); by itself the model finds NAME 0.0" in message and "words/s" in message
    assert "Take it out of preprocess.deidentify.entity_model, or raise the limits: changes.csv lists its marks" in message
    assert "Allegra" not in message + "".join(capfd.readouterr()) and not Path("out/documents").exists()
    with open(".cache/failed-preprocess/changes.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["step"] == "entity model"]
    assert [(row["rule"], row["before"], row["times"]) for row in rows] == [("NAME", "Allegra D", "60")]


@pytest.mark.slow
def test_a_harmless_model_stands_in_report_and_passport_and_gives_the_same_bytes_in_any_process(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    model = of_folder(write_token_classifier(Path("model"), WORDS))
    monkeypatch.setenv("WORKERS", "1")
    threads = torch.get_num_threads()
    result = run("one", model)
    assert "entity model: by itself the model finds NAME 0.0" in capfd.readouterr().out
    report = json.loads(Path("one/report/deidentification.json").read_text())
    figures = report["entity_model"]
    rows = {row["name"]: row for row in figures["damage"]["by_type"]}
    assert (rows["value"]["spans"], rows["value"]["changed"], rows["notes"]["documents"]) == (60, 0, 60)
    assert [row["name"] for row in figures["recall"]["model"]] == ["NAME", "FACILITY"] and "words_per_second" not in json.dumps(report)
    (row,) = figures["damage"]["by_rule"]
    assert (row["step"], row["rule"], row["changes"], row["clinical"]) == ("entity model", "NAME", 60, [])
    assert result.metrics["entity_model_damage_value"] == 0 and result.metrics["entity_model_words_per_second"] > 0
    shown = page(json.loads(Path("one/report/funnel.json").read_text()), report, ShardStats(), {}, [])
    assert "<h2>Entity model</h2>" in shown and "NAME: names" in shown.partition("<h2>Entity model</h2>")[2]
    sentences = deidentification_of({"deidentification": deidentification({"artifacts/reports/preprocess": Path("one/report")})})
    assert [sentence.partition(": ")[0] for sentence in sentences] == ["recall", "damage", "entity model recall", "entity model damage"]
    assert all("[NAME] came" in json.loads(line)["answer"] for line in Path("one/documents/train.jsonl").read_text().splitlines())

    monkeypatch.setenv("WORKERS", "2")
    torch.set_num_threads(threads + 1)
    run("two", model)
    torch.set_num_threads(threads)
    written = [[(p.relative_to(out), p.read_bytes()) for p in sorted(Path(out).rglob("*")) if p.is_file()] for out in ("one", "two")]
    assert written[0] == written[1] and len(written[0]) > 5
