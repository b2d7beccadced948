// Elements of the viewer and the numbers in them.

/** A new element with properties, attributes (in `aria`) and children. */
function make(tag, { aria = {}, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  for (const [name, value] of Object.entries(aria)) element.setAttribute(name === "role" ? name : `aria-${name}`, value);
  element.append(...children);
  return element;
}

/** A number with four significant digits, without needless zeros. */
function text(value) {
  if (!Number.isFinite(value)) return "no value";
  const digits = Math.max(0, 3 - Math.floor(Math.log10(Math.abs(value) || 1)));
  return String(Number(value.toFixed(Math.min(digits, 12)))).replace("-", "\u2212");
}

/** A labelled slider for whole numbers below `count`; hidden if there is no choice. */
class Slider {
  constructor(name, count, change) {
    const id = `viewer-${name.toLowerCase()}`;
    this.input = make("input", { type: "range", id, min: 0, max: Math.max(count - 1, 0), step: 1, value: 0 });
    this.input.oninput = () => change(Number(this.input.value));
    this.output = make("output", { htmlFor: id });
    this.row = make("div", { className: "control" },
      make("label", { htmlFor: id, textContent: name }), this.input, this.output);
    this.row.hidden = count < 2;
  }

  /** Move to a value, with its text and what a screen reader says. */
  show(value, shown, spoken = shown) {
    this.input.value = value;
    this.input.setAttribute("aria-valuetext", spoken);
    this.output.textContent = shown;
  }
}

/** A bar of colours between two values. */
class Legend {
  constructor() {
    this.bar = make("canvas", { width: 256, height: 1, aria: { hidden: "true" } });
    [this.title, this.low, this.high] = [make("span", { className: "of" }), make("span"), make("span")];
    this.row = make("div", { className: "legend" }, this.title, this.low, this.bar, this.high);
  }

  show(title, ends, table, units) {
    this.title.textContent = title;
    this.low.textContent = text(ends[0]);
    this.high.textContent = `${text(ends[1])} ${units}`;
    const levels = Float32Array.from({ length: 256 }, (_, level) => level);
    paintImage(this.bar, new Image2D(levels, 1, 256, 1), [0, 255], table);
  }
}
