// The viewer of a result: which image, in which window, with which colours on top, and what the pointer points at.

const GROUP = { std: "std", width: "width", error: "error" }; // all other views share the window of the images
const COLOURS = { std: "viridis", width: "viridis", error: "inferno" };
const FLIP_MS = 250;

class Viewer {
  constructor(root, content) {
    Object.assign(this, { root, content, planes: new Planes(content), readout: new Readout(content), turn: 0 });
    this.tables = { gray: colourTable("") };
    for (const [name, hex] of Object.entries(content.colours)) this.tables[name] = colourTable(hex);
    this.views = this.listViews();
    this.overlays = ["none", ...["std", "width"].filter((name) => name in this.views)];
    this.controls = new Controls(this);
    this.build();
    this.listen();
    this.reset();
    this.readAddress();
  }

  listViews() {
    const { titles, samples, interval } = this.content;
    const views = { mean: titles.mean };
    if (samples.length) views.sample = "Sample";
    if (titles.std) views.std = titles.std;
    if (interval) views.width = `${Math.round(interval.level * 100)} % interval width (${interval.kind})`;
    if (titles.reference) Object.assign(views, { reference: titles.reference, error: "|Error| of the mean" });
    if (titles.plain) views.plain = titles.plain;
    return views;
  }

  build() {
    const [, rows, columns] = this.content.shape;
    const ratio = columns / (rows * this.content.aspect);
    this.canvas = make("canvas", { tabIndex: 0, aria: { role: "img" } });
    this.blank = make("div", { className: "blank", hidden: true });
    this.mark = make("div", { className: "mark", hidden: true });
    const frame = make("div", { className: "image" }, this.canvas, this.blank, this.mark);
    frame.style.aspectRatio = String(ratio);
    frame.style.maxWidth = `calc(76vh * ${ratio})`;
    const { views, panel, help } = this.controls;
    panel.append(this.readout.box);
    this.root.append(make("h2", { textContent: "Viewer" }), views, make("div", { className: "screen" }, frame), panel,
      help, make("p", { className: "about wide sub", textContent: this.content.note }));
    this.root.hidden = false;
  }

  /** Everything as at first: the mean of the valid slice in the middle. */
  reset() {
    const { slices } = this.content;
    const middle = Math.floor(slices.length / 2);
    const distance = (k) => Math.abs(k - middle) + (slices[k].valid ? 0 : slices.length);
    const slice = slices.reduce((best, _, k) => (distance(k) < distance(best) ? k : best), middle);
    this.state = { view: "mean", slice, sample: 0, overlay: "none", opacity: 0.6, playing: false, pixel: null };
    this.lastOverlay = this.overlays[1];
    this.windows = structuredClone(this.content.windows);
    this.play(false);
  }

  /** `#slice=12` in the address: the slice with this number in its source, or the nearest one. */
  readAddress() {
    const match = /^#slice=(\d+)$/.exec(window.location.hash);
    if (!match) return;
    const { slices } = this.content;
    const distance = (k) => Math.abs(slices[k].number - Number(match[1]));
    this.set({ slice: slices.reduce((best, _, k) => (distance(k) < distance(best) ? k : best), 0) });
  }

  // ---- events ----

  listen() {
    const { canvas, root } = this;
    root.addEventListener("click", (event) => { // after a click with the mouse the keys belong to the image again
      if (event.detail && event.target.tagName === "BUTTON") canvas.focus({ preventScroll: true });
    });
    root.addEventListener("keydown", (event) => this.onKey(event));
    canvas.addEventListener("pointerdown", (event) => {
      this.drag = { x: event.clientX, y: event.clientY, ends: this.windowOf(this.state.view) };
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => this.onMove(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { this.drag = null; });
    canvas.addEventListener("pointerleave", () => this.point(null));
    canvas.addEventListener("dblclick", () => {
      const group = this.groupOf(this.state.view);
      this.windows[group] = [...this.content.windows[group]];
      this.draw();
    });
    canvas.addEventListener("wheel", (event) => {
      if (document.activeElement !== canvas || this.content.slices.length < 2) return;
      event.preventDefault();
      this.move("slice", Math.sign(event.deltaY));
    }, { passive: false });
    window.addEventListener("hashchange", () => this.readAddress());
  }

  onMove(event) {
    const { width, height, left, top } = this.canvas.getBoundingClientRect();
    if (this.drag) {
      const [low, high] = this.drag.ends;
      const wide = (high - low) * Math.exp((2 * (event.clientX - this.drag.x)) / width);
      const centre = (low + high) / 2 + ((high - low) * (event.clientY - this.drag.y)) / height;
      this.windows[this.groupOf(this.state.view)] = [centre - wide / 2, centre + wide / 2];
      this.draw();
    }
    const [, rows, columns] = this.content.shape;
    const inside = (part, count) => Math.min(Math.max(Math.floor(part * count), 0), count - 1);
    this.point([inside((event.clientY - top) / height, rows), inside((event.clientX - left) / width, columns)]);
  }

  onKey(event) {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    const { tagName } = event.target;
    if (tagName === "SELECT" || tagName === "INPUT" || (tagName === "BUTTON" && event.key === " ")) return;
    const arrows = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    const view = Object.keys(this.views)[Number(event.key) - 1];
    const key = event.key.toLowerCase();
    if (event.key in arrows) {
      const [down, right] = arrows[event.key];
      if (event.shiftKey) this.movePixel(down, right);
      else if (down) this.move("slice", down);
      else this.move("sample", right);
    } else if (key === " ") this.play(!this.state.playing);
    else if (key === "o") this.toggleOverlay();
    else if (key === "r") this.reset();
    else if (view) this.set({ view });
    else return;
    event.preventDefault();
  }

  // ---- changes ----

  set(changes) {
    Object.assign(this.state, changes);
    if (changes.overlay && changes.overlay !== "none") this.lastOverlay = changes.overlay;
    if (changes.view && changes.view !== "sample") this.play(false);
    else this.draw();
  }

  move(what, by) {
    const count = what === "slice" ? this.content.slices.length : this.content.samples.length;
    if (count < 2) return;
    const next = this.state[what] + by;
    if (what === "slice") this.set({ slice: Math.min(Math.max(next, 0), count - 1) });
    else this.set({ sample: (next + count) % count, view: "sample" });
  }

  toggleOverlay() {
    if (this.overlays.length > 1) this.set({ overlay: this.state.overlay === "none" ? this.lastOverlay : "none" });
  }

  /** Start or stop to flip through the samples. */
  play(on) {
    clearInterval(this.timer);
    this.state.playing = on && this.content.samples.length > 1;
    if (this.state.playing) {
      this.state.view = "sample";
      this.timer = setInterval(() => this.move("sample", 1), FLIP_MS);
    }
    this.draw();
  }

  setWindow(which, value) {
    const ends = this.windowOf(this.state.view);
    ends[which] = value;
    if (Number.isFinite(value) && ends[0] < ends[1]) this.windows[this.groupOf(this.state.view)] = ends;
    this.draw();
  }

  movePixel(down, right) {
    const [, rows, columns] = this.content.shape;
    const [y, x] = this.state.pixel || this.readout.place([Math.floor(rows / 2), Math.floor(columns / 2)]);
    const inside = (place, count) => Math.min(Math.max(place, 0), count - 1);
    const { step } = this.readout;
    this.point([inside(y + down * step, rows), inside(x + right * step, columns)]);
  }

  /** Read another pixel; the image stays. */
  point(pixel) {
    this.state.pixel = pixel && this.readout.place(pixel);
    this.showPixel();
  }

  // ---- what is shown ----

  groupOf(view) {
    return GROUP[view] || "image";
  }

  windowOf(view) {
    return [...this.windows[this.groupOf(view)]];
  }

  tableOf(view) {
    return this.tables[COLOURS[view] || "gray"];
  }

  nameOf(view) {
    return view === "sample" ? this.content.samples[this.state.sample] : view;
  }

  titleOf(view) {
    return view === "sample" ? `Sample ${Number(this.nameOf(view).slice("sample ".length)) + 1}` : this.views[view];
  }

  async draw() {
    const turn = ++this.turn;
    this.root.setAttribute("aria-busy", "true");
    const { view, slice, overlay } = this.state;
    const names = [this.nameOf(view), ...(overlay === "none" ? [] : [overlay])];
    const [image, colours] = await Promise.all(names.map((name) => this.planes.get(name, slice)));
    if (turn !== this.turn) return; // something newer is on its way
    this.paint(image, colours);
    this.controls.show(this);
    await this.showPixel();
    if (turn === this.turn) this.root.setAttribute("aria-busy", "false");
  }

  paint(image, colours) {
    const { view, slice, overlay, opacity } = this.state;
    const { item, slices } = this.content;
    const { number, valid } = slices[slice];
    const missing = valid ? `there is no such image of ${item} ${number}` : `${item} ${number} was not reconstructed`;
    this.blank.hidden = Boolean(image);
    this.blank.textContent = missing;
    this.canvas.setAttribute("aria-label", image ? `${this.titleOf(view)}, ${item} ${number}` : missing);
    if (!image) return;
    const above = colours && { image: colours, ends: this.windowOf(overlay), table: this.tableOf(overlay), opacity };
    paintImage(this.canvas, image, this.windowOf(view), this.tableOf(view), above);
  }

  async showPixel() {
    const { pixel, slice } = this.state;
    const found = this.content.slices[slice];
    const [, rows, columns] = this.content.shape;
    this.mark.hidden = !pixel || !found.valid;
    if (this.mark.hidden) {
      this.readout.show(found);
      return;
    }
    const sample = this.content.samples.length ? this.nameOf("sample") : "";
    const values = await this.readout.values(this.planes, slice, pixel, sample);
    if (pixel !== this.state.pixel || slice !== this.state.slice) return;
    this.mark.style.top = `${(100 * (pixel[0] + 0.5)) / rows}%`;
    this.mark.style.left = `${(100 * (pixel[1] + 0.5)) / columns}%`;
    this.readout.show(found, pixel, values, sample, sample && this.titleOf("sample"));
  }
}

if (typeof DecompressionStream !== "undefined") {
  const content = JSON.parse(document.getElementById("viewer-data").textContent);
  new Viewer(document.getElementById("viewer"), content);
}
