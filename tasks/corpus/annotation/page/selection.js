// The selected text as offsets in UTF-16 units, by mouse or word by word. What is shown has as many units as the text of the note.

const RIGHT_TO_LEFT = /[\u0590-\u08ff\ufb1d-\ufdff\ufe70-\ufefc]/;
const WORD = /[\p{L}\p{M}\p{N}]+(?:[.'’\-/:@_&+][\p{L}\p{M}\p{N}]+)*/gu;

export class TextSelection {
  constructor(scrolled) {
    this.scrolled = scrolled;
    this.words = [];
  }

  // A note is shown anew.
  show(container, text) {
    Object.assign(this, { container, text });
    if (this.source !== text) {
      this.source = text;
      this.words = [...text.matchAll(WORD)].map((match) => [match.index, match.index + match[0].length]);
    }
  }

  // What is selected, without blanks at its ends; null for nothing.
  get() {
    const selection = getSelection();
    if (!selection.rangeCount || selection.isCollapsed) return null;
    const range = selection.getRangeAt(0);
    if (!this.container?.contains(range.commonAncestorContainer)) return null;
    let [start, end] = [this.offset(range.startContainer, range.startOffset), this.offset(range.endContainer, range.endOffset)];
    while (start < end && /\s/.test(this.text[start])) start += 1;
    while (start < end && /\s/.test(this.text[end - 1])) end -= 1;
    if (start >= end) return null;
    if (!(this.anchor >= start && this.anchor < end)) this.anchor = start; // the mouse selected it
    return { start, end };
  }

  clear() {
    getSelection().removeAllRanges();
  }

  set(start, end) {
    const [from, to] = [this.place(start, false), this.place(end, true)];
    getSelection().setBaseAndExtent(...from, ...to);
    const box = getSelection().getRangeAt(0).getBoundingClientRect();
    const frame = this.scrolled.getBoundingClientRect();
    if (box.top < frame.top + 24) this.scrolled.scrollBy(0, box.top - frame.top - frame.height / 3);
    if (box.bottom > frame.bottom - 24) this.scrolled.scrollBy(0, box.bottom - frame.bottom + frame.height / 3);
  }

  // Whether the line of a place is read from right to left: its first letter says so.
  isRightToLeft(place) {
    const start = Math.max(this.text.lastIndexOf("\n", place - 1), this.text.lastIndexOf("\r", place - 1)) + 1;
    const letter = /\p{L}/u.exec(this.text.slice(start, start + 1000));
    return Boolean(letter) && RIGHT_TO_LEFT.test(letter[0]);
  }

  // The word `step` further, alone or together with those that are selected; `from`: where to begin if nothing is.
  moveWord(step, extend, from) {
    if (!this.words.length) return;
    const selected = this.get();
    const inverted = selected && this.anchor > selected.start;
    let focus;
    if (!selected) {
      const first = this.wordAt(from);
      focus = step > 0 ? first : first - 1;
    } else if (extend && inverted) focus = this.wordAt(selected.start) + step;
    else if (extend || step > 0) focus = this.lastWordBefore(selected.end) + step;
    else focus = this.lastWordBefore(selected.start);
    this.select(focus, extend && selected);
  }

  // A word in the line above (-1) or below (1).
  moveLine(step, extend, from) {
    const selected = this.get();
    const at = selected ? (step > 0 ? selected.end : selected.start) : from;
    getSelection().collapse(...this.place(at, step > 0 && selected));
    getSelection().modify("move", step > 0 ? "forward" : "backward", "line");
    const { focusNode, focusOffset } = getSelection();
    const target = this.container.contains(focusNode) ? this.offset(focusNode, focusOffset) : at;
    if (selected) this.set(selected.start, selected.end);
    this.select(this.wordAt(target), extend && selected);
  }

  select(index, extended) {
    const [start, end] = this.words[Math.min(Math.max(index, 0), this.words.length - 1)];
    if (!extended) {
      this.anchor = start;
      this.set(start, end);
    } else {
      const [first, last] = this.words[this.wordAt(this.anchor)];
      this.set(Math.min(first, start), Math.max(last, end));
    }
  }

  // A character more or less, at the end or at the beginning.
  resize(step, atStart) {
    const selected = this.get();
    if (!selected) return;
    const size = (at) => (at < this.text.length ? String.fromCodePoint(this.text.codePointAt(at)).length : 0);
    const before = (at) => (at > 1 && /[\udc00-\udfff]/.test(this.text[at - 1]) ? 2 : Math.min(1, at));
    let { start, end } = selected;
    if (atStart) start += step > 0 ? -before(start) : size(start);
    else end += step > 0 ? size(end) : -before(end);
    if (start < end) {
      this.anchor = start;
      this.set(start, end);
    }
  }

  // The index of the first word that ends behind a place.
  wordAt(place) {
    let [low, high] = [0, this.words.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.words[middle][1] <= place) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  // The index of the last word that begins before a place.
  lastWordBefore(place) {
    let index = this.wordAt(place);
    if (index === this.words.length || this.words[index][0] >= place) index -= 1;
    return index;
  }

  // The unit of a place in the document.
  offset(node, offset) {
    const range = document.createRange();
    range.setStart(this.container, 0);
    range.setEnd(node, offset);
    return range.toString().length;
  }

  // The text node and offset of a unit; at the end of a node, or at the beginning of the next.
  place(unit, atEnd) {
    const walker = document.createTreeWalker(this.container, NodeFilter.SHOW_TEXT);
    let left = unit;
    let last = null;
    for (let node = walker.nextNode(); node; node = walker.nextNode()) {
      if (left < node.length || (atEnd && left === node.length)) return [node, left];
      left -= node.length;
      last = node;
    }
    return last ? [last, last.length] : [this.container, 0];
  }
}
