"""HTML as it stands in notes: read whole in linear time, or rejected with its place."""

import base64
import random
import re
import time
from pathlib import Path

import pytest
from helpers.readers import fhir_note, read

from tasks.corpus.readers.records import UnreadableError
from tasks.corpus.readers.rendering import html_text

SLOPPY = {  # what stands in notes, and the words that must come out of it
    "unclosed tags": ("<p>Fever<p>Rash <b>severe<li>one<li>two", "Fever Rash severe one two"),
    "a bare <": ("BP <120/80, Hb < 7, <3 days, a <= b, x<", "BP <120/80, Hb < 7, <3 days, a <= b, x<"),
    "a bare &": ("R&D & more &amp; Q&A; &bogus; AT&T", "R&D & more & Q&A; &bogus; AT&T"),
    "entities": ("5 &lt 6 &auml; &#8364; &#x41; &notit; caf&eacute", "5 < 6 ä € A ¬it; café"),
    "nested tables": ("<table><tr><td>1 <table><tr><td>2 </table> 3</table> 4", "1 2 3 4"),
    "XHTML with a declaration": (
        '<?xml version="1.0" encoding="iso-8859-1"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN" "x.dtd">'
        '<html xmlns="http://www.w3.org/1999/xhtml"><head><title>T</title></head><body><p>Müde</p></body></html>',
        "Müde",
    ),
    "comments": ("a <!-- not this > or --that--> b <!----> c <!--> d --> <!-- x --!> e", "a b c d --> e"),
    "CDATA": ("a <![CDATA[b < c & <d> > e]]> f", "a b < c & <d> > e f"),
    "Word's own": ("<p class=MsoNormal><![if !supportLists]>- <![endif]>x<o:p></o:p><?xml:namespace prefix = o ns = 'u' /></p>", "- x"),
    "attributes of all kinds": (
        '<TD NOWRAP WIDTH=5 bgcolor=#fff><font face=Times New Roman size=2>a</font><td width="5""><img alt=\'>\' src=x>b<input disabled>',
        "a b",
    ),
    "wrongly nested": ("<b><i>a</b> b</i></p></div> c</body> d</html> e", "a b c d e"),
    "elements of clinical documents": (
        "<content styleCode='Bold'>a</content> <paragraph>b</paragraph> <br/> <x-y>c <svg><path d='M0'/>",
        "a b c",
    ),
    "raw text": ("<title>a <b></title> <textarea>c </b> &amp;</textarea> d", "c </b> & d"),
}


@pytest.mark.parametrize("name", SLOPPY)
def test_sloppy_html_is_read_whole(tmp_path: Path, name: str) -> None:
    source, words = SLOPPY[name]
    assert re.sub(r"[\s|-]+", "", html_text(source)) == re.sub(r"[\s-]+", "", words)
    attachment = {"contentType": "text/html", "data": base64.b64encode(source.encode()).decode()}
    (document,), rejected = read(tmp_path, "a.ndjson", fhir_note(content=[{"attachment": attachment}]))
    assert document.answer == html_text(source) and not rejected


LOSING = {
    "a tag that never ends": "Fever <b and then nothing more",
    "a quote that never ends": '<p title="a>Fever</p>',
    "a quote that ends much later": '<a href="x>Fever</a> <a href="y">Rash</a>',
    "a comment that never ends": "Fever <!-- Rash",
    "a title that never ends": "<title>Fever",
    "a script that never ends": "a<script>Fever",
    "text as a tag": "K <normal and pH >7",
    "text as a known tag": "weight <b and height>2",
    "text as a whole tag": "Dear <patient>, take <dose>",
    "an address as a tag": "From: <anna@example.org>",
    "a tag within a tag": "<systolic</p> is low",
    "text as an end tag": "BP </3 days> a",
    "text as a declaration": "BP <!normal value> a",
    "CDATA that never ends": "<![CDATA[Fever",
    "NUL": "a\0b",
    "half a character": "a\ud800b",
}


@pytest.mark.parametrize("name", LOSING)
def test_html_that_would_lose_text_is_rejected_with_its_place(tmp_path: Path, name: str) -> None:
    with pytest.raises(UnreadableError, match="holds"):
        html_text(LOSING[name])
    data = base64.b64encode(LOSING[name].encode("utf-16-le", "surrogatepass")).decode()
    note = fhir_note(content=[{"attachment": {"contentType": "text/html; charset=utf-16-le", "data": data}}])
    documents, rejected = read(tmp_path, "a.ndjson", "\n".join([note, fhir_note(resourceType="DiagnosticReport", conclusion="Well.")]))
    assert [d.answer for d in documents] == ["Well."] and [position for position, _ in rejected] == ["line 1"]


@pytest.mark.parametrize("tag", ["div", "b", "p", "font", "table", "ul><li", "span class='a'"])
@pytest.mark.parametrize("depth", [300, 3_000, 100_000])
def test_tags_of_any_depth_are_read_whole_in_linear_time(tag: str, depth: int) -> None:
    started = time.process_time()
    text = html_text("".join(f"<{tag}>w{n} " for n in range(depth)))
    assert [word for word in text.split() if word not in "-|"] == [f"w{n}" for n in range(depth)]
    assert time.process_time() - started < 60  # 4 s; of quadratic time it would be hours


@pytest.mark.slow
def test_text_beyond_ten_megabytes_is_read_whole() -> None:
    assert len(html_text(f"<p>{'fever ' * 3_000_000}</p>").split()) == 3_000_000


@pytest.mark.parametrize(
    "piece", ['<a "', '<a x="', "<", "<a", "<![CDATA[", "<!--", "<!", "<title>", "<a ", "&", "&#x", "</", "<p a=1 ", "<b><p>", "</div>"]
)
def test_no_html_costs_more_than_linear_time(piece: str) -> None:
    started = time.process_time()
    try:
        html_text(piece * 100_000)
    except UnreadableError as problem:
        assert "holds" in str(problem)
    assert time.process_time() - started < 10


def test_words_between_any_sloppy_forms_all_come_out() -> None:
    forms, rng = [source for source, _ in SLOPPY.values()], random.Random(1)
    for _ in range(500):
        words = [f"w{n}x" for n in range(rng.randrange(1, 8))]
        source = "".join(f"{rng.choice(forms)} {word} " for word in words).replace("b, x<", "b")
        assert [word for word in html_text(source).split() if word in words] == words
