// Between the server's offsets, in code points, and those of JavaScript's strings, in UTF-16 units: an emoji is one, and two.

export class Offsets {
  constructor(text) {
    const units = [0];
    for (const character of text) units.push(units.at(-1) + character.length);
    this.units = Uint32Array.from(units);
  }

  toUnits(point) {
    return this.units[point];
  }

  toPoints(unit) {
    let [low, high] = [0, this.units.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.units[middle] < unit) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
