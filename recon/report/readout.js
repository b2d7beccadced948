// The values of the pixel under the pointer, in words.

class Readout {
  constructor(content) {
    this.content = content;
    this.box = make("div", { className: "readout" });
  }

  /** The coarsest step of all images: on this grid all values of a pixel are known. */
  get step() {
    return Math.max(1, ...Object.values(this.content.planes).map((plane) => plane.step));
  }

  /** The pixel of that grid at or before a pixel. */
  place([y, x]) {
    return [y, x].map((place) => Math.floor(place / this.step) * this.step);
  }

  /** All values of a pixel of a slice by name. */
  async values(planes, slice, [y, x], sample) {
    const { interval, titles } = this.content;
    const wanted = ["mean", "std", "reference", "plain"].filter((name) => titles[name]);
    if (interval) wanted.push("lower", "upper");
    if (sample) wanted.push(sample);
    const images = await Promise.all(wanted.map((name) => planes.get(name, slice)));
    return Object.fromEntries(wanted.map((name, k) => [name, images[k] ? images[k].at(y, x) : NaN]));
  }

  /** Show the values of a pixel, or without them how to get some. */
  show(slice, pixel = null, values = {}, sample = "", sampleTitle = "") {
    const { units, interval, titles, item } = this.content;
    if (!pixel || !slice.valid) {
      const help = "Point at a pixel (or press Shift and an arrow key) to read its value and its interval.";
      const none = `There are no values: ${item} ${slice.number} was not reconstructed.`;
      this.box.replaceChildren(make("p", { className: "sub", textContent: slice.valid ? help : none }));
      return;
    }
    const amount = (value) => (Number.isFinite(value) ? `${this.limited(value)} ${units}` : "no value");
    const rows = [["pixel (row, column)", pixel.join(", ")], [titles.mean, amount(values.mean)]];
    if (interval) {
      const name = `${Math.round(interval.level * 100)} % interval (${interval.kind})`;
      rows.push([name, `${this.limited(values.lower)} to ${amount(values.upper)}`]);
    }
    if ("std" in values) rows.push([titles.std, `${text(values.std)} ${units}`]);
    for (const name of ["reference", "plain"]) if (name in values) rows.push([titles[name], amount(values[name])]);
    if (sample) rows.push([sampleTitle, amount(values[sample])]);
    if (slice.chi2 !== null) rows.push([`held-out \u03c7\u00b2 of ${item} ${slice.number}`, text(slice.chi2)]);
    this.box.replaceChildren(make("dl", {}, ...rows.flatMap(([name, value]) =>
      [make("dt", { textContent: name }), make("dd", { textContent: value })])));
  }

  /** A value as text; the lowest that is shown stands for all below. */
  limited(value) {
    const { lowest } = this.content;
    return lowest !== null && value <= lowest + 0.1 ? `\u2264 ${text(lowest)}` : text(value);
  }
}
