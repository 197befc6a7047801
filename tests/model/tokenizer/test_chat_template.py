"""Chat templates of foreign models: whatever one does, it ends with one clear error, in seconds and bounded memory."""

import multiprocessing
import os
import resource
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from helpers.project import ROOT

from model.tokenizer.chat_template import MAX_SECONDS, render

GOOD = "{{ bos }}{% for m in messages %}{{ m.role }}: {{ m.content | trim }}\n{% endfor %}"
VALUES = {"messages": [{"role": "user", "content": " a "}], "bos": "<s>"}
LETTERS = "{% set s = namespace(x='ab') %}"
HOSTILE = {
    "a long range": "{% for i in range(10**9) %}{% endfor %}",
    "nested loops": "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
    "a string that doubles": LETTERS + "{% for i in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}{{ s.x }}",
    "a string that doubles by ~": LETTERS + "{% for i in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}",
    "a string that grows by its length": LETTERS + "{% for i in range(99999) %}{% set s.x = s.x + 'b' * 999999 %}{% endfor %}",
    "a product": "{{ 'a' * 10**11 }}",
    "a power": "{{ 10 ** (10 ** 10) }}",
    "a macro that calls itself twice": "{% macro a(n) %}{% if n %}{{ a(n - 1) }}{{ a(n - 1) }}{% endif %}{% endmacro %}{{ a(60) }}",
    "a loop that calls itself": "{% for i in range(99) recursive %}{{ loop(range(99)) }}{% endfor %}",
    "a filter that fills": "{{ 'a' | center(10**10) }}",
    "a format that fills": "{{ '%10000000000d' % 1 }}",
    "an indent": "{{ ('a\n' * 10**6) | indent(10**6) }}",
    "a batch": "{{ [1] | batch(10**10, 'x') | list }}",
    "many words": "{{ lipsum(n=10**7) }}",
    "replaced again and again": LETTERS + "{% for i in range(40) %}{% set s.x = s.x.replace('a', 'aba') %}{% endfor %}",
    "much text": "{% for i in range(99999) %}{{ 'a' * 1000 }}{% endfor %}",
    "braces": "{{ " + "(" * 100_000 + "1" + ")" * 100_000 + " }}",
    "blocks": "{% if 1 %}" * 20_000 + "{% endif %}" * 20_000,
    "a lot of template": "x" * (1 << 21),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_template_ends_with_one_error_in_seconds_and_bounded_memory(name: str) -> None:
    assert render(GOOD, VALUES) == "<s>user: a\n"
    threads, before = threading.active_count(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.monotonic()
    with pytest.raises(ValueError, match="the chat template (failed|has)") as raised:
        render(HOSTILE[name], VALUES)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 300
    assert time.monotonic() - started < 60  # of a machine that others use as well; the processor's time is what is limited
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10
    assert threading.active_count() == threads
    children = [process for process in psutil.process_iter(["ppid", "cmdline"]) if process.info["ppid"] == os.getpid()]
    renderers = [process for process in children if "chat_template" in " ".join(process.info["cmdline"] or [])]  # None: a zombie's
    assert len(renderers) < 2 and all(child.cpu_times().user < MAX_SECONDS + 2 for child in renderers)
    assert render(GOOD, VALUES) == "<s>user: a\n"


@pytest.mark.slow
def test_threads_render_together_and_one_hostile_template_fails_none_of_the_others() -> None:
    with ThreadPoolExecutor(8) as pool:
        bad = pool.submit(render, HOSTILE["nested loops"], VALUES)
        good = [pool.submit(render, GOOD, VALUES | {"bos": str(n)}) for n in range(200)]
        assert [one.result() for one in good] == [f"{n}user: a\n" for n in range(200)]
        with pytest.raises(ValueError, match=f"takes more than {MAX_SECONDS} seconds"):
            bad.result()


def _rendered(index: int) -> str:
    return render(GOOD, VALUES | {"bos": str(index)})


def test_a_forked_process_has_a_renderer_of_its_own() -> None:
    assert _rendered(0) == "0user: a\n"
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(_rendered, range(50)) == [f"{n}user: a\n" for n in range(50)]
    assert _rendered(1) == "1user: a\n"


STARTED = """
import sys, threading, time
from model.tokenizer.chat_template import render
render("x", {})
print("started", flush=True)
threading.Thread(target=render, args=(sys.argv[1], {}), daemon=True).start()
time.sleep(600)
"""


@pytest.mark.parametrize("template", ["x", HOSTILE["nested loops"]], ids=["idle", "at work"])
def test_the_renderer_ends_with_a_process_that_was_killed(template: str) -> None:
    with subprocess.Popen([sys.executable, "-c", STARTED, template], cwd=ROOT, stdout=subprocess.PIPE) as process:
        assert process.stdout and process.stdout.readline() == b"started\n"
        (renderer,) = psutil.Process(process.pid).children()
        process.kill()
    _, alive = psutil.wait_procs([renderer], timeout=60)
    assert not alive
