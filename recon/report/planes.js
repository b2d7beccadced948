// The images of the page as arrays of numbers. How they are written: recon/report/encoding.py.

/** Inflate base64 text (zlib). */
async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The value of each whole number; between the knots of the scale they are evenly spaced, and 0 is "no value". */
function valuesOf({ bits, knots }) {
  const table = new Float32Array(2 ** bits).fill(NaN);
  for (let k = 1; k < knots.length; k++) {
    const [[start, low], [end, high]] = [knots[k - 1], knots[k]];
    for (let code = start; code <= end; code++) table[code] = low + ((high - low) * (code - start)) / (end - start);
  }
  return table;
}

/** Undo the prediction from the left and the upper neighbour. */
function decode(bytes, columns, plane) {
  const wide = plane.bits > 8;
  const count = wide ? bytes.length / 2 : bytes.length;
  const mask = wide ? 0xffff : 0xff;
  const codes = new Uint16Array(count);
  const values = new Float32Array(count);
  const table = valuesOf(plane);
  for (let i = 0; i < count; i++) {
    const folded = wide ? bytes[i] + 256 * bytes[count + i] : bytes[i];
    const first = i % columns === 0;
    const upper = i >= columns ? codes[i - columns] : first ? 0 : codes[i - 1];
    const left = first ? upper : codes[i - 1];
    const error = folded & 1 ? -((folded + 1) >> 1) : folded >> 1;
    codes[i] = (((left + upper) >> 1) + error) & mask;
    values[i] = table[codes[i]];
  }
  return values;
}

/** An image of one slice: values with the grid of pixels on which they are known (every `step`-th). */
class Image2D {
  constructor(values, rows, columns, step) {
    Object.assign(this, { values, rows, columns, step });
  }

  /** The value at a pixel of the full grid: that of the kept pixel at or before it. */
  at(y, x) {
    return this.values[Math.floor(y / this.step) * this.columns + Math.floor(x / this.step)];
  }

  /** A new image from this one and others, pixel by pixel, on the coarsest of their grids. */
  combine(others, formula) {
    const images = [this, ...others];
    const coarse = images.reduce((a, b) => (b.step > a.step ? b : a));
    const values = new Float32Array(coarse.rows * coarse.columns);
    for (let y = 0, i = 0; y < coarse.rows; y++) {
      for (let x = 0; x < coarse.columns; x++, i++) {
        values[i] = formula(...images.map((image) => image.at(y * coarse.step, x * coarse.step)));
      }
    }
    return new Image2D(values, coarse.rows, coarse.columns, coarse.step);
  }
}

/** All images of the page, decoded when they are needed. */
class Planes {
  constructor(content) {
    this.content = content;
    this.known = new Map();
    this.most = 200;
  }

  /** The image `name` of slice number `slice` in the page; null if there is none. */
  get(name, slice) {
    const key = `${name} of ${slice}`;
    const found = this.known.get(key) || this.make(name, slice);
    this.known.delete(key); // the latest used is last
    this.known.set(key, found);
    if (this.known.size > this.most) this.known.delete(this.known.keys().next().value);
    return found;
  }

  async make(name, slice) {
    if (name === "error") {
      const [mean, reference] = await Promise.all([this.get("mean", slice), this.get("reference", slice)]);
      return mean && reference && mean.combine([reference], (a, b) => Math.abs(a - b));
    }
    if (name === "width" || name === "lower" || name === "upper") {
      const [lower, upper] = await this.ends(slice);
      if (name === "lower" || !lower) return lower;
      return name === "upper" ? upper : upper.combine([lower], (a, b) => a - b);
    }
    const plane = this.content.planes[name];
    const text = plane && plane.data[slice];
    if (!text) return null;
    const [, rows, columns] = this.content.shape.map((length) => Math.ceil(length / plane.step));
    return new Image2D(decode(await inflate(text), columns, plane), rows, columns, plane.step);
  }

  /** Both ends of the interval; where only the upper one is written the lower one mirrors it, but for a least value. */
  async ends(slice) {
    const names = ["mean", "above", "below"];
    const [mean, above, below] = await Promise.all(names.map((name) => this.get(name, slice)));
    if (!mean || !above) return [null, null];
    const { least } = this.content.interval;
    const floor = below || least === null ? -Infinity : least;
    const lower = mean.combine([below || above], (a, b) => Math.max(a - b, floor));
    return [lower, mean.combine([above], (a, b) => a + b)];
  }
}
