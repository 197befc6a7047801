"""HTML and RTF as text with their layout."""

import time

import pytest

from tasks.corpus.readers import rendering, rtf
from tasks.corpus.readers.records import UnreadableError
from tasks.corpus.readers.rendering import html_text
from tasks.corpus.readers.rtf import rtf_text

LAYOUT = {
    "headings and paragraphs": ("<h1>Plan</h1><p>Rest &amp;<br/>fluids.</p><p>Review.</p>", "Plan\n\nRest &\nfluids.\n\nReview."),
    "a line per div": ("<div>BP 120/80</div><div>HR 72</div>", "BP 120/80\nHR 72"),
    "a table": (
        "<table><thead><tr><th>Test</th><th>Value</th><th>Flag</th><th>Range</th></tr></thead><tbody>"
        "<tr><td>Sodium</td><td>140</td><td></td><td>135-145</td></tr><tr><td></td><td>4.1</td><td>H</td><td></td></tr></tbody></table>",
        "Test | Value | Flag | Range\nSodium | 140 | | 135-145\n| 4.1 | H |",
    ),
    "a cell of several lines": ("<table><tr><td>Rx</td><td><p>a</p><p>b<br>c</p></td></tr></table>", "Rx | a b c"),
    "a table that only arranges": ("<table><tr><td><p>One.</p><p>Two.</p></td></tr></table>", "One.\nTwo."),
    "a table in a table": (
        "<table><tr><td>Labs</td><td><table><tr><td>K</td><td>4.1</td></tr><tr><td>Na</td><td>140</td></tr></table></td></tr></table>",
        "Labs\nK | 4.1\nNa | 140",
    ),
    "a caption": ("<table><caption>Vitals</caption><tr><td>HR</td><td>72</td></tr></table>", "Vitals\nHR | 72"),
    "lists": (
        "<ul><li>one<ul><li>inner</li></ul></li><li><p>two</p></li></ul><ol start='3'><li>x</li><li>y</li></ol>",
        "- one\n  - inner\n- two\n3. x\n4. y",
    ),
    "powers": ("WBC 4.2 x 10<sup>9</sup>/L, CO<sub>2</sub>, 28 kg/m<sup>2</sup>, Na<sup>+</sup>", "WBC 4.2 x 10^9/L, CO2, 28 kg/m2, Na+"),
    "what is not seen": (
        "<html><head><title>T</title><style>td{x}</style></head><body><script>var page = 1;</script>Fever<style>p</style></body></html>",
        "Fever",
    ),
    "an XML declaration": (
        "<?xml version='1.0' encoding='utf-8'?>\n<html xmlns='http://www.w3.org/1999/xhtml'><body><p>Müde</p></body></html>",
        "Müde",
    ),
    "preformatted text": ("<pre>Na    140\nK       4.1</pre>", "Na    140\nK       4.1"),
    "preformatted by style": ("<div style='white-space: pre-wrap'>Na   140\nK      4</div><p>x</p>", "Na   140\nK      4\n\nx"),
    "blanks that do not collapse": ("<p>Na&nbsp;&nbsp;&nbsp;140</p>", "Na   140"),
    "lines without any markup": ("<div xmlns='http://www.w3.org/1999/xhtml'>1. Rest\n2. Fluids &lt; 2 L</div>", "1. Rest\n2. Fluids < 2 L"),
    "entities once": ("<p>a &amp;lt; b &amp;amp; c</p>", "a &lt; b &amp; c"),
    "controls": ("<p>a&#8203;b&shy;c&#65279;d</p>", "abcd"),
    "text that is hidden for a moment": ("<div style='display:none'>Assessment</div><p>x</p>", "Assessment\n\nx"),
    "fields of a form": (
        "<p><input type=checkbox checked>Fever <input type=checkbox>Rash <input value='120/80'></p>",
        "[x] Fever [ ] Rash 120/80",
    ),
    "definitions": ("<dl><dt>Drug<dd>daily</dl>", "Drug\n  daily"),
}


@pytest.mark.parametrize("name", LAYOUT)
def test_html_is_read_as_its_layout_shows_it(name: str) -> None:
    source, expected = LAYOUT[name]
    assert html_text(source) == expected


def test_many_elements_are_refused_and_long_texts_are_linear(monkeypatch: pytest.MonkeyPatch) -> None:
    started = time.process_time()
    assert html_text("<p>" + "<b>w</b> " * 200_000 + "</p>").count("w") == 200_000
    assert time.process_time() - started < 20
    monkeypatch.setattr(rendering, "MAX_ELEMENTS", 1000)
    with pytest.raises(UnreadableError, match="more than 1,000 elements"):
        html_text("<p>x" * 1001)


HEAD = rb"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss\fcharset0 Arial;}}{\info{\author Ann Smith}}\f0 "
RTF = {
    "characters of the code page and of Unicode": (rb"M\'fcller 5 \u8364? \u-10179?\u-8704? \{a\} b\\c\par", "Müller 5 € 😀 {a} b\\c"),
    "a Cyrillic code page": (rb"{\f1\'ef}".replace(b"{\\f1", b"{"), "ï"),
    "paragraphs, lines and tabs": (rb"Plan\par Rest\line now\par\par Na\tab 140\par", "Plan\nRest\nnow\n\nNa\t140"),
    "a picture": (rb"a {\pict\pngblip 89504e470d0a1a0a}b", "a b"),
    "a picture as bytes": (b"a {\\pict\\wmetafile8\\bin8 {\\}}x}{\\}b}", "a b"),
    "an embedded object": (rb"a {\object\objemb{\*\objclass Word}{\*\objdata 0105000002}{\result {\pict 0102}}}b", "a b"),
    "a link": (rb'a {\field{\*\fldinst HYPERLINK "http://x"}{\fldrslt link}} b', "a link b"),
    "a table": (
        rb"Labs\par\trowd\cellx100\cellx200\cellx300\pard\intbl Sodium\cell 140\cell\cell\row"
        rb"\trowd\cellx100\pard\intbl K\cell\b 4.1\b0\cell H\par x\cell\trowd\row\pard After\par",
        "Labs\nSodium | 140 |\nK | 4.1 | H x\nAfter",
    ),
}


@pytest.mark.parametrize("name", RTF)
def test_rtf_is_read_as_its_layout_shows_it(name: str) -> None:
    source, expected = RTF[name]
    assert rtf_text(HEAD + source + b"}") == expected


def test_rtf_in_other_encodings() -> None:
    assert rtf_text(rb"{\rtf1\ansi\ansicpg1251 \'cf\'f0\'e8}") == "При"
    assert rtf_text("{\\rtf1\\ansi Müde}".encode()) == rtf_text("{\\rtf1\\ansi\\ansicpg1252 Müde}".encode("cp1252")) == "Müde"


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (b"Plan", "does not begin"),
        (b"{\\rtf1 {\\info lost", "do not close"),
        (b"{\\rtf1\\ansi\\ansicpg1252 \x81\xff}", "not in its encoding"),
        (rb"{\rtf1\ansicpg932 \'81}", "not in its encoding"),
        (rb"{\rtf1{\fonttbl" + rb"{\f1 A;}" * 20_000 + b"}x}", "list of fonts"),
    ],
)
def test_rtf_that_would_lose_text_is_refused(source: bytes, reason: str) -> None:
    with pytest.raises(UnreadableError, match=reason):
        rtf_text(source)


@pytest.mark.parametrize(
    "piece", [rb"{\field{\*\fldinst HYPERLINK ", b"{\\f1", b"\\bin", rb"\cell", rb"\trowd\row", rb"\u", rb"\'e4", b"{", b"}", b"\\"]
)
def test_no_rtf_costs_more_than_linear_time(piece: bytes) -> None:
    started = time.process_time()
    for end in (b"}", b"}" * 100_000):
        try:
            rtf_text(b"{\\rtf1\\ansi " + piece * 50_000 + end)
        except UnreadableError as error:
            assert "RTF" in str(error) or "bytes" in str(error) or "surrogate" in str(error)
    assert time.process_time() - started < 20


def test_an_rtf_file_of_too_many_bytes_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rtf, "MAX_RECORD", 100)
    with pytest.raises(UnreadableError, match="record of more than"):
        rtf_text(b"{\\rtf1 " + b"x" * 100 + b"}")
