"""The interactive part of a page: images as JSON, and the script and the style that show them.

Where scripts do not run it stays hidden, and the picture and the tables of the page say what there is to say.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np

from recon.figure import colour_table
from recon.report.encoding import encode
from recon.report.layout import ERROR_SCALE, slice_numbers
from recon.report.shown import Shown
from recon.report.survey import Survey, kind_of, survey
from recon.report.thinning import Thinning, ladder

#: Bytes of a whole page.
LARGEST_PAGE = 10_000_000
#: In the order in which they need each other.
_SCRIPTS = ("planes.js", "painting.js", "elements.js", "readout.js", "controls.js", "viewer.js")
#: Slices from which the size of a volume is estimated.
_PROBES = 3


def viewer_text(shown: Shown, aspect: float, room: int) -> str:
    """Return what the viewer shows as JSON, of at most ``room`` bytes.

    ``aspect`` is the height of a pixel over its width.
    """
    found = survey(shown)
    valid = np.flatnonzero(shown.valid)
    probes = valid[np.unique(np.linspace(0, len(valid) - 1, _PROBES).round().astype(int))]
    for kept in ladder():
        slices = _kept_slices(shown, kept)
        if len(slices) > _PROBES:
            lengths = [_length(_encoded(shown, int(k), kept, found)) for k in probes]
            if sum(lengths) / len(lengths) * len(slices) > 1.1 * room:
                continue
        encoded = [_encoded(shown, k, kept, found) if shown.valid[k] else {} for k in slices]
        text = to_json(_content(shown, kept, found, slices, encoded, aspect))
        if len(text) <= room or (len(slices) == 1 and kept.slice_step > 1):
            break
    return text


def to_json(content: Any) -> str:
    """Return JSON that is safe inside a script element: nothing in it ends the element or opens a comment."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def script() -> str:
    """Return the program of the viewer."""
    return "\n".join(['"use strict";', *(_resource(name) for name in _SCRIPTS)])


def style() -> str:
    """Return the style sheet of the viewer."""
    return _resource("viewer.css")


def markup(text: str) -> str:
    """Return the part of the page for content as JSON text: data, and a place that the script fills."""
    return (
        '<section id="viewer" class="viewer" aria-label="Viewer" hidden></section>\n'
        f'<script type="application/json" id="viewer-data">{text}</script>\n<script>{script()}</script>\n'
    )


def policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    """Return the meta element that forbids all but these inline styles and scripts, and any use of the network."""
    allowed = {"style-src": styles, "script-src": scripts}
    rules = ["default-src 'none'", "img-src data:", "base-uri 'none'", "form-action 'none'"]
    rules += [f"{kind} {' '.join(_digest(text) for text in texts)}" for kind, texts in allowed.items() if texts]
    return f'<meta http-equiv="Content-Security-Policy" content="{escape("; ".join(rules))}">'


def _kept_slices(shown: Shown, kept: Thinning) -> list[int]:
    """Return every N-th slice, starting so that a single one would be in the middle."""
    count = shown.shape[0]
    start = min(kept.slice_step // 2, count // 2)
    return list(range(start, count, kept.slice_step))


def _encoded(shown: Shown, index: int, kept: Thinning, found: Survey) -> dict[str, str]:
    """Return the images of a slice as text, without those that follow from others or are too many."""
    images, window = shown.images(index), shown.display.window
    chosen = [name for name in images if not name.startswith("sample ")]
    chosen += [name for name in images if name.startswith("sample ")][: kept.samples]
    if found.mirrored or found.cut_off:
        chosen = [name for name in chosen if name != "below"]
    steps = {name: slice(None, None, kept.step_of(name)) for name in chosen}
    return {
        name: encode(images[name][step, step], found.scale(name, kept.bits_of(name), window))
        for name, step in steps.items()
        if kind_of(name) in found.ends
    }


def _content(
    shown: Shown, kept: Thinning, found: Survey, slices: list[int], encoded: list[dict[str, str]], aspect: float
) -> dict[str, Any]:
    names = list(dict.fromkeys(name for images in encoded for name in images))
    planes = {}
    for name in names:
        scale = found.scale(name, kept.bits_of(name), shown.display.window)
        planes[name] = {
            **{"step": kept.step_of(name), "bits": scale.bits, "knots": scale.knots},
            "data": [images.get(name) for images in encoded],
        }
    black, white = shown.display.window
    return {
        **{"shape": list(shown.shape), "aspect": aspect, "item": shown.item, "units": shown.display.units},
        "lowest": shown.display.lowest,
        "slices": [_slice_facts(shown, k) for k in slices],
        "planes": planes,
        "titles": {name: title for name, title in shown.titles.items() if title and name in names},
        "samples": [name for name in names if name.startswith("sample ")],
        "interval": _interval(shown, found) if "above" in names else None,
        "windows": {
            **{"image": [black, white], "error": [0, (white - black) / ERROR_SCALE]},
            **{name: [0, found.tops[name] or 1.0] for name in ("std", "width") if name in found.tops},
        },
        "colours": {name: _colours(name) for name in ("viridis", "inferno")},
        "note": _note(shown, kept, found, names),
    }


def _slice_facts(shown: Shown, index: int) -> dict[str, Any]:
    """Return number, validity and held-out test of a slice."""
    tests = shown.posterior.provenance.get("held_out") or []
    test = tests[index] if isinstance(tests, list) and len(tests) == shown.shape[0] else None
    chi2 = test.get("chi2") if isinstance(test, Mapping) else None
    chi2 = round(chi2, 3) if isinstance(chi2, (int, float)) and np.isfinite(chi2) else None
    number = int(slice_numbers(shown.posterior)[index])
    return {"number": number, "valid": bool(shown.valid[index]), "chi2": chi2}


def _interval(shown: Shown, found: Survey) -> dict[str, Any]:
    """Return how to get both ends: without ``below``, the lower one mirrors the upper one, but not below ``least``."""
    kind = "raw" if shown.interval is None else "calibrated"
    return {"level": shown.level, "kind": kind, "least": None if found.mirrored else 0}


def _colours(name: str) -> str:
    return "".join(bytes(colour).hex() for colour in colour_table(name))


def _note(shown: Shown, kept: Thinning, found: Survey, names: Sequence[str]) -> str:
    """Say what the values are, how exact they are, and what is left out."""
    lines = [shown.display.note, *(_rounding(shown, kept, found, name) for name in ("mean", "std") if name in names)]
    if left := kept.text(len(shown.samples), shown.item):
        lines.append(f"To keep the page small it holds only {left}; the file of the result holds everything.")
    if shown.posterior.n_valid > len(shown.samples):
        lines.append(f"The first {len(shown.samples)} of {shown.posterior.n_valid} samples can be shown.")
    invalid = [str(slice_numbers(shown.posterior)[int(k)]) for k in np.flatnonzero(~shown.valid)]
    if invalid:
        more = f", ... ({len(invalid)})" if len(invalid) > 20 else ""
        lines.append(f"Not reconstructed: {shown.item} {', '.join(invalid[:20])}{more}.")
    return " ".join(line for line in lines if line)


def _rounding(shown: Shown, kept: Thinning, found: Survey, name: str) -> str:
    """Say how exact the values of an image are."""
    scale = found.scale(name, kept.bits_of(name), shown.display.window)
    steps, units = scale.steps(), shown.display.units
    finest = int(np.argmin(steps))
    low, high = scale.knots[finest][1], scale.knots[finest + 1][1]
    beyond = f" from {low:.3g} to {high:.3g} {units}, beyond to {max(steps):.2g}" if len(steps) > 1 else ""
    return f"The {name} is rounded to {steps[finest]:.2g}{beyond} {units}".removesuffix(".") + "."


def _length(encoded: Mapping[str, str]) -> int:
    return sum(map(len, encoded.values()))


def _resource(name: str) -> str:
    return (files("recon.report") / name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
