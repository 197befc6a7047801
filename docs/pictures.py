"""``make pictures``: the pictures of README and docs, made from the last run of the pipeline in this checkout.

Each is what a user sees: the real server, MLflow and Prefect on loopback, in headless Chromium.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from subprocess import DEVNULL, Popen, run
from time import sleep

from helpers.annotated import annotating, write_notes
from helpers.browser import Page, browser
from helpers.chat_page import ANSWERED, READY, send
from helpers.project import free_port, wait_for
from mlflow import MlflowClient

from tasks.registry import tracking

PICTURES = Path(__file__).resolve().parent / "pictures"
MAX_BYTES = 200_000
QUESTION = (
    "Extract the vital signs, laboratory values and medications of this note as JSON.\n\nBP 129/66 mmHg, HR 102/min, T 38.5°C, "
    "SpO2 96% (RA), RR 19/min. WBC 15780.0 /uL [H], CRP 181.9 mg/L [H]. Continue Ceftriaxone, Amlodipine."
)
MODEL = "medical-llm"
NOTE = """DISCHARGE SUMMARY
Patient: HOLLOWAY, MARGARET  R     MRN: 00482913      DOB: 04/17/1951
Attending: Dr. Samuel Okafor, St. Brigid Medical Center

HISTORY OF PRESENT ILLNESS
Mrs. Holloway is a 67-year-old woman who came in on 11/02/2018 with two days of
dyspnea. Her daughter Ruth said that she had stopped furosemide 40 mg. BP 148/86,
HR 104, SpO2 91 % on room air. Strength 4/5 in both legs.

LABS
Sodium        134    135-145    L
Creatinine    1.4    0.6-1.1    H
BNP           912

PLAN
Furosemide 40 mg twice a day, weight every morning. Bell palsy of 2011: no change.
Follow-up with Okafor in clinic on 11/19/2018; call 555-867-5309 with questions.

/es/ S OKAFOR MD
"""  # of nobody


@contextmanager
def server(*command: str, health: str, **environment: str) -> Iterator[str]:
    """A server on a free port of loopback; its address."""
    port = free_port()
    address = f"http://127.0.0.1:{port}"
    changed = {name: value.format(address=address) for name, value in environment.items()}
    with Popen([*command, "--host", "127.0.0.1", "--port", str(port)], env=os.environ | changed, stdout=DEVNULL, stderr=DEVNULL) as process:
        try:
            wait_for(address + health, process)
            yield address
        finally:
            process.terminate()


def save(page: Page, name: str) -> None:
    """The tab as a PNG of at most ``MAX_BYTES``."""
    PICTURES.mkdir(exist_ok=True)
    page.picture(PICTURES / f"{name}.png")
    size = (PICTURES / f"{name}.png").stat().st_size
    print(f"docs/pictures/{name}.png  {size / 1000:.0f} kB")
    if size > MAX_BYTES:
        raise ValueError(f"docs/pictures/{name}.png has more than {MAX_BYTES / 1000:.0f} kB: show a smaller part of the page")


def tab(devtools: int, address: str, width: int, height: int) -> Page:
    """A tab of that many pixels, without scroll bars."""
    page = Page(devtools, width=width, height=height)
    page.call("Emulation.setScrollbarsHidden", hidden=True)
    page.open(address)
    return page


def chat(devtools: int, model: str = f"models:/{MODEL}@champion", artifacts: Path = Path("artifacts")) -> None:
    """The web page with an answer, with values extracted from a note, and with answers of the tuned and the base model."""
    options = ("--compare-with", str(artifacts / "base"), "--unverified", "--tasks", str(artifacts / "documents" / "tasks.json"))
    with server(sys.executable, "-m", "serve", model, *options, health="/readyz") as address:
        page = tab(devtools, address, 1100, 520)
        page.wait(READY)
        send(page, QUESTION)
        page.wait(ANSWERED, seconds=120)
        save(page, "chat")
        extraction(tab(devtools, address, 1100, 800))
        comparison(tab(devtools, address, 1100, 640))


def extraction(page: Page) -> None:
    """Values from a note, one of them lit up with the words that it came from."""
    page.wait(READY)
    page.click("[name=mode][value=extract]")
    page.wait("document.querySelector('#task').options.length > 1")
    send(page, QUESTION.partition("\n\n")[2])
    page.wait(ANSWERED, seconds=120)
    page.focus(".fields tr:nth-of-type(3) .value")
    page.evaluate("document.querySelector('#conversation').scrollTop = 0")
    save(page, "extraction")


def comparison(page: Page) -> None:
    """Answers of two models with one seed, and the words in which they differ."""
    page.wait(READY)
    page.click("#compare")
    page.evaluate("Object.assign(document.querySelector('#seed'), {value: 7}); document.querySelector('#length').value = 64")
    send(page, "What is arachnodactyly?")
    page.wait(ANSWERED, seconds=120)
    page.evaluate("[...document.querySelectorAll('.views button')].find(b => b.innerText === 'Differences').click()")
    page.evaluate("document.querySelector('.vote').scrollIntoView({block: 'nearest'})")
    save(page, "comparison")


def reports(devtools: int) -> None:
    """The report of the evaluation and the data report, from their files."""
    for name, path in (("evaluation", "artifacts/evaluation/report.html"), ("data", "artifacts/reports/shard/data-report.html")):
        page = tab(devtools, Path(path).resolve().as_uri(), 1100, 900)
        save(page, name)


def annotation(devtools: int) -> None:
    """The page on which a person marks identifiers and damage, with a made-up note."""
    with tempfile.TemporaryDirectory() as folder:
        write_notes(Path(folder), [("p", NOTE)])
        with annotating(Path(folder)) as (address, _):
            page = tab(devtools, address, 1280, 760)
            page.wait("document.querySelector('.mask')")
            for key in ("j", "ArrowRight", "ArrowRight", "ArrowRight", "m"):  # an initial too far away for the rules
                page.press(key)
            page.wait("document.querySelector('.missed')")
            save(page, "annotation")


def lineage(devtools: int, client: MlflowClient, version: str) -> None:
    """The tree from the version to the raw files."""
    with tempfile.TemporaryDirectory() as folder:
        path = client.download_artifacts(str(client.get_model_version(MODEL, version).run_id), "lineage.html", folder)
        page = tab(devtools, Path(path).resolve().as_uri(), 1100, 900)
        save(page, "lineage")


def mlflow_version(devtools: int, version: str) -> None:
    """The version's page in MLflow."""
    command = (str(Path(sys.executable).with_name("mlflow")), "server", "--backend-store-uri", tracking.tracking_uri(), "--workers", "1")
    with server(*command, health="/health", MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false") as address:
        page = tab(devtools, f"{address}/#/models/{MODEL}/versions/{version}?workflowType=machine_learning", 1280, 900)
        page.wait("document.body.innerText.includes('Registered At') || document.body.innerText.includes('Created')", seconds=60)
        page.evaluate("document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')?.click()")
        page.wait("!document.querySelector('[data-component-id=\"mlflow.assistant.chat_panel.close\"]')")
        sleep(1)  # until the table has come to rest
        save(page, "mlflow")


def prefect_run(devtools: int) -> None:
    """A run of the flow in Prefect: its graph of tasks."""
    with tempfile.TemporaryDirectory() as home:
        command = (str(Path(sys.executable).with_name("prefect")), "server", "start")
        settings = {"PREFECT_HOME": home, "PREFECT_SERVER_UI_API_URL": "{address}/api", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
        with server(*command, health="/api/health", **settings) as address:
            environment = os.environ | {"PREFECT_API_URL": f"{address}/api", "PREFECT_HOME": home}
            flow = run([sys.executable, "-m", "flows.pipeline"], env=environment, capture_output=True, text=True, check=True)
            flow_run = re.findall(r"flow-run/([0-9a-f-]{36})", flow.stdout + flow.stderr)[0]
            page = tab(devtools, f"{address}/runs/flow-run/{flow_run}", 1280, 900)
            page.wait("document.body.innerText.includes('Completed') && document.querySelector('canvas')", seconds=60)
            page.evaluate("[...document.querySelectorAll('*')].findLast(e => e.textContent.trim() === 'Task Runs').click()")
            page.wait("document.body.innerText.includes('register')", seconds=60)
            sleep(5)  # until the graph has come to rest
            save(page, "prefect")


def main() -> None:
    client = tracking.connect()
    version = str(client.get_model_version_by_alias(MODEL, "champion").version)
    with ExitStack() as stack:
        devtools = stack.enter_context(browser(Path(stack.enter_context(tempfile.TemporaryDirectory()))))
        chat(devtools)
        reports(devtools)
        annotation(devtools)
        lineage(devtools, client, version)
        mlflow_version(devtools, version)
        prefect_run(devtools)


if __name__ == "__main__":
    main()
