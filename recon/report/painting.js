// Images on a canvas: values in a window as gray or colour, and a second image as colours on top.

const NO_VALUE = [42, 47, 56];

/** 256 colours (red, green, blue) from hexadecimal text, or gray without. */
function colourTable(hex) {
  const numbers = hex ? hex.match(/../g).map((pair) => parseInt(pair, 16)) : null;
  return Uint8Array.from({ length: 768 }, (_, i) => (numbers ? numbers[i] : Math.floor(i / 3)));
}

/** The fraction of a window that lies below a value, from 0 to 1. */
function fraction(value, [low, high]) {
  return Math.min(Math.max((value - low) / (high - low), 0), 1);
}

/** Put a colour on a pixel (four bytes from `place` on): all of it, or mixed with what is there. */
function blend(bytes, place, colours, start, opacity) {
  for (let channel = 0; channel < 3; channel++) {
    const before = bytes[place + channel];
    bytes[place + channel] = before + opacity * (colours[start + channel] - before);
  }
  bytes[place + 3] = 255;
}

/** Show an image, one pixel of the canvas for each of its pixels; `overlay` is `{image, ends, table, opacity}`. */
function paintImage(canvas, image, ends, table, overlay = null) {
  Object.assign(canvas, { width: image.columns, height: image.rows });
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(image.columns, image.rows);
  for (let y = 0, i = 0; y < image.rows; y++) {
    for (let x = 0; x < image.columns; x++, i++) {
      const value = image.values[i];
      if (Number.isNaN(value)) blend(pixels.data, 4 * i, NO_VALUE, 0, 1);
      else blend(pixels.data, 4 * i, table, 3 * Math.round(255 * fraction(value, ends)), 1);
      if (!overlay) continue;
      const above = overlay.image.at(y * image.step, x * image.step);
      if (Number.isNaN(above)) continue;
      const strength = fraction(above, overlay.ends); // where it is low the image shows through
      blend(pixels.data, 4 * i, overlay.table, 3 * Math.round(255 * strength), overlay.opacity * strength);
    }
  }
  context.putImageData(pixels, 0, 0);
}
