"""Steps of the web page's tests: JavaScript conditions to wait for, opening the page, sending a question by keyboard."""

from helpers.browser import Page

READY = "!document.querySelector('#send').disabled"
ANSWERED = "document.querySelector('#status').textContent.startsWith('The answer')"
ERROR = "document.querySelector('#turns .error')"
TOKENS = "document.querySelectorAll('.token').length"
TURNS = "document.querySelectorAll('.turn').length"
# All text whose contrast with its background is below 4.5 to 1 (WCAG 2.2, 1.4.3), except in disabled controls. A token's shading
# counts as its background, in its full colour.
LOW_CONTRAST = """(() => {
  const context = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d", { willReadFrequently: true });
  const over = (...colours) => {
    context.clearRect(0, 0, 1, 1);
    for (const colour of colours) { context.fillStyle = colour; context.fillRect(0, 0, 1, 1); }
    return [...context.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = (rgb) => {
    const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const faint = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === Node.TEXT_NODE && n.data.trim());
    if (!own || !element.checkVisibility() || element.closest(":disabled, .visually-hidden")) continue;
    const style = getComputedStyle(element);
    const grounds = [];
    for (let at = element; at; at = at.parentElement) grounds.unshift(getComputedStyle(at).backgroundColor);
    const glow = style.backgroundImage.match(/color\\(srgb [^)]*\\)/)?.[0] ?? "transparent";
    const behind = over("Canvas", ...grounds, glow);
    const [a, b] = [light(behind), light(over(`rgb(${behind.join(" ")})`, style.color))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) faint.push([element.tagName, element.className, element.textContent.slice(0, 20), ratio]);
  }
  return faint;
})()"""


def open_chat_page(devtools: int, address: str, *, width: int = 1100, scheme: str = "light") -> Page:
    """The chat page in a new tab, ready for a question."""
    page = Page(devtools, width=width, scheme=scheme)
    page.open(address)
    page.wait(READY)
    return page


def send(page: Page, text: str) -> None:
    """Type a question, in place of what stands there, and send it by the Enter key."""
    page.evaluate("document.querySelector('#prompt').value = ''")
    page.focus("#prompt")
    page.type(text)
    page.press("Enter")
