// What stands around the image: buttons, sliders, window, legends and help. It asks the viewer for every change.

/** The keys that do something on this page, and what. */
function keysOf({ content, overlays, views }) {
  const { slices, samples, item } = content;
  const images = Object.keys(views);
  const several = (choices, ...keys) => (choices.length > 1 ? keys : []);
  return [
    ...several(slices, ["\u2191 \u2193", item]),
    ...several(samples, ["\u2190 \u2192", "sample"], ["Space", "flip through the samples"]),
    ...several(overlays, ["O", "overlay"]), ["R", "reset"],
    ...several(images, [`1\u2013${Math.min(images.length, 9)}`, "image"]), ["Shift + arrows", "pixel"],
  ];
}

const HELP = "Drag in the image: window (sideways its width, up and down its level); double click: reset the window. " +
  "Keys, once the image is clicked: ";

class Controls {
  constructor(viewer) {
    const { content, views, overlays } = viewer;
    const { slices, samples, item } = content;
    this.buttons = Object.fromEntries(Object.entries(views).map(([view, title]) => [
      view, make("button", { type: "button", textContent: title, onclick: () => viewer.set({ view }) }),
    ]));
    const name = item[0].toUpperCase() + item.slice(1);
    this.slice = new Slider(name, slices.length, (value) => viewer.set({ slice: value }));
    this.sample = new Slider("Sample", samples.length, (value) => viewer.set({ sample: value, view: "sample" }));
    this.flip = make("button", { type: "button", onclick: () => viewer.play(!viewer.state.playing) });
    this.flip.hidden = samples.length < 2;
    const titles = { none: "none", std: "std", width: "interval width" };
    this.overlay = make("select", { id: "viewer-overlay", onchange: () => viewer.set({ overlay: this.overlay.value }) },
      ...overlays.map((value) => make("option", { value, textContent: titles[value] })));
    this.opacity = new Slider("Opacity", 21, (value) => viewer.set({ opacity: value / 20 }));
    this.ends = ["lowest", "highest"].map((end, which) => make("input", {
      type: "number", step: "any", aria: { label: `${end} value of the window` },
      onchange: (event) => viewer.setWindow(which, event.target.valueAsNumber),
    }));
    this.legends = [new Legend(), new Legend()];
    this.views = make("div", { className: "views wide", aria: { role: "group", label: "Image shown" } },
      ...Object.values(this.buttons));
    this.panel = make("div", { className: "controls" }, ...this.rows(overlays));
    this.help = make("p", { className: "help wide sub" }, HELP,
      ...keysOf(viewer).flatMap(([key, what]) => [make("kbd", { textContent: key }), ` ${what}  `]));
  }

  rows(overlays) {
    const overlay = make("div", { className: "control" },
      make("label", { htmlFor: "viewer-overlay", textContent: "Overlay" }), this.overlay);
    overlay.hidden = overlays.length < 2;
    return [this.slice.row, this.sample.row, this.flip, overlay, this.opacity.row,
      make("div", { className: "control window" }, make("span", { textContent: "Window" }), ...this.ends),
      ...this.legends.map((legend) => legend.row)];
  }

  /** Show the state of the viewer. */
  show(viewer) {
    const { view, slice, sample, overlay, opacity, playing } = viewer.state;
    const { slices, samples, units } = viewer.content;
    for (const [name, button] of Object.entries(this.buttons)) button.setAttribute("aria-pressed", String(name === view));
    const { number, valid } = slices[slice];
    this.slice.show(slice, `${number}${valid ? "" : " (none)"}`,
      `${number}, ${slice + 1} of ${slices.length}${valid ? "" : ", not reconstructed"}`);
    this.sample.show(sample, `${sample + 1} of ${samples.length}`);
    this.flip.textContent = playing ? "Stop" : "Flip through the samples";
    this.flip.setAttribute("aria-pressed", String(playing));
    this.overlay.value = overlay;
    this.opacity.row.hidden = overlay === "none";
    this.opacity.show(Math.round(opacity * 20), `${Math.round(opacity * 100)} %`);
    const ends = viewer.windowOf(view);
    ends.forEach((value, which) => {
      if (document.activeElement !== this.ends[which]) this.ends[which].value = Number(value.toPrecision(4));
    });
    this.legends[0].show(viewer.titleOf(view), ends, viewer.tableOf(view), units);
    this.legends[1].row.hidden = overlay === "none";
    if (overlay !== "none") {
      this.legends[1].show(viewer.titleOf(overlay), viewer.windowOf(overlay), viewer.tableOf(overlay), units);
    }
  }
}
