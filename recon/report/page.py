"""The HTML page of a report: one file that needs no other and no network.

Picture and tables are plain HTML; where scripts run the viewer of `recon.report.viewer` joins them. Every string from a
file (names, provenance, attributes) is escaped before it enters the page.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from recon.report.layout import style_of
from recon.report.viewer import LARGEST_PAGE, markup, policy, script, style, viewer_text

if TYPE_CHECKING:
    from recon.posterior_samples import PosteriorSamples
    from recon.report.shown import Shown

#: Colours of the verdicts that need a banner.
COLOURS = {"doubtful": "#f2c14e", "failed": "#ff6b57"}
STYLE = """
:root { color-scheme: dark; --line: #2a2f38; --faint: #a3acb9; }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2rem 1.5rem 3rem; max-width: 84rem; background: #101216; color: #eceff4;
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.3rem; margin: 0 0 .9rem; } h2 { font-size: 1.05rem; margin: 0 0 .5rem; }
.sub, .note, caption { color: var(--faint); } .sub { margin: 0; }
.cards { display: flex; flex-wrap: wrap; gap: .7rem; margin: 0 0 1.2rem; }
.card { border: 1px solid var(--line); border-radius: 8px; padding: .55rem .9rem; min-width: 8.5rem; }
.card b { display: block; font-size: 1.3rem; font-variant-numeric: tabular-nums; }
.card span { color: var(--faint); font-size: .82rem; }
figure { margin: 0 0 1.2rem; } img { display: block; width: 100%; height: auto; border-radius: 8px;
  border: 1px solid var(--line); }
.columns { columns: 23rem; column-gap: 2.2rem; }
section { break-inside: avoid; margin: 0 0 1.4rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .88rem; }
th, td { text-align: left; padding: .28rem .9rem .28rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; overflow-wrap: anywhere; }
th { color: var(--faint); font-weight: normal; } tbody th { width: 38%; }
.note { max-width: 60rem; border-left: 3px solid #4f7cac; padding-left: .9rem; margin: 0 0 1.4rem; }
.bad { color: #ff9d76; }
.banner { border-radius: 8px; padding: .7rem 1rem; margin: 0 0 1.2rem; color: #101216; }
.doubtful { background: #f2c14e; } .failed { background: #ff6b57; }
.banner ul { margin: .3rem 0 0; padding-left: 1.2rem; }
@media print { :root { color-scheme: light; --line: #ccc; --faint: #555; } body { background: #fff; color: #000; } }
"""

NOTE = """The standard deviation map is <b>raw</b>: it is the spread of the samples under this prior and this sampler
and has not been calibrated against outcomes. A method can be confidently wrong, most of all where the image differs
from what the prior was trained on. {values} PSNR and SSIM use the maximum of the reference as data range. For research
only, not for diagnosis."""


CALIBRATED = """ The interval whose width is shown beside it is <b>calibrated</b>: stretched until it held the truth
as often as promised, on average over images like those it was calibrated on. That is no promise for one pixel, one
patient, or another kind of image."""


def page(shown: Shown, title: str, picture: bytes, merit: Mapping[str, float], aspect: float) -> str:
    """Return the page as text, with the PNG ``picture`` (which carries the title) inlined.

    ``aspect`` is the height of a pixel over its width.
    """
    posterior, level, calibrated = shown.posterior, shown.level, shown.interval is not None
    image = base64.b64encode(picture).decode("ascii")
    styles = STYLE + style()
    before = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy([styles], [script()])}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{styles}</style>
</head>
<body>
<h1>Reconstruction report</h1>
{_banner(posterior)}{_cards(posterior, merit, level)}
"""
    after = f"""<figure><img src="data:image/png;base64,{image}" alt="Posterior mean, standard deviation and samples">
</figure>
<p class="note">{NOTE.format(values=escape(style_of(posterior).values))}{CALIBRATED if calibrated else ""}</p>
<div class="columns">
{_sections(posterior)}
</div>
</body>
</html>
"""
    room = LARGEST_PAGE - len((before + markup("") + after).encode(errors="backslashreplace"))
    return before + markup(viewer_text(shown, aspect, room)) + after


def _sections(posterior: PosteriorSamples) -> str:
    """Return one small table for each subject: diagnostics, settings, provenance."""
    plain = {key: value for key, value in posterior.provenance.items() if not isinstance(value, Mapping)}
    listed = {key: plain.pop(key) for key in list(plain) if _is_table(plain[key])}
    nested = {key: value for key, value in posterior.provenance.items() if isinstance(value, Mapping)}
    tables = {"Diagnostics": _table(_scalars(posterior)), "Per sample": _per_sample(posterior)}
    for key, value in {**{key: _merged(value) for key, value in listed.items()}, **nested}.items():
        tables[key.replace("_", " ").capitalize()] = _table(flatten(value))
    tables["Geometry"] = _table(flatten(posterior.geometry))
    tables["Provenance"] = _table(flatten(plain))
    return "\n".join(f"<section><h2>{escape(title)}</h2>{body}</section>" for title, body in tables.items())


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """Flatten nested dictionaries into rows ``{"a.b": "text"}``, without empty entries (None, empty lists)."""
    rows: dict[str, str] = {}
    for key, value in tree.items():
        if _is_table(value):
            value = _merged(value)
        if isinstance(value, Mapping):
            rows.update(flatten(value, f"{prefix}{key}."))
        elif not (value is None or (isinstance(value, (list, tuple)) and not value)):
            rows[f"{prefix}{key}"] = _text(value)
    return rows


def _is_table(value: Any) -> bool:
    """Tell whether a value is a list of dictionaries, one for each slice."""
    return isinstance(value, (list, tuple)) and bool(value) and all(isinstance(item, Mapping) for item in value)


def _merged(table: list[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the dictionaries of all slices key by key."""
    return {key: _summary([item.get(key) for item in table]) for key in table[0]}


def _summary(values: list[Any]) -> Any:
    """Return one value where all agree, the range of numbers, or all values."""
    if all(value == values[0] for value in values):
        return values[0]
    if all(isinstance(value, (int, float)) for value in values):
        return f"{_text(min(values))} to {_text(max(values))}"
    return values


def _banner(posterior: PosteriorSamples) -> str:
    """Return the verdict with all its reasons, on a coloured ground; nothing if there is no doubt."""
    verdict = posterior.verdict
    if verdict.level not in COLOURS:
        return ""
    reasons = "".join(f"<li>{escape(reason)}</li>" for reason in verdict.reasons)
    return f'<div class="banner {verdict.level}"><b>{verdict.level.upper()}</b><ul>{reasons}</ul></div>\n'


def _cards(posterior: PosteriorSamples, merit: Mapping[str, float], level: float) -> str:
    cards = []
    if "psnr" in merit:
        gain = merit["psnr"] - merit["plain_psnr"] if "plain_psnr" in merit else None
        cards.append((f"{merit['psnr']:.1f} dB", "PSNR of the mean" + (f" ({gain:+.1f} dB)" if gain else "")))
        cards.append((f"{merit['psnr_object']:.1f} dB", "PSNR inside the object"))
        if "psnr_limit" in merit:
            cards.append((f"{merit['psnr_limit']:.1f} dB", "largest PSNR that the noise of the reference allows"))
        cards.append((f"{merit['ssim']:.3f}", "SSIM of the mean"))
        cards.append((f"{merit['nmse']:.4f}", "NMSE of the mean"))
    if "coverage" in merit:
        cards.append((f"{merit['coverage']:.1%}", f"coverage of the {level:.0%} interval (raw)"))
    if "calibrated_coverage" in merit:
        cards.append((f"{merit['calibrated_coverage']:.1%}", f"coverage of the {level:.0%} interval (calibrated)"))
    if posterior.verdict.level != "unknown":
        cards.insert(0, (posterior.verdict.level, "verdict"))
    residual = posterior.diagnostics.get("residual")
    if residual is not None and np.size(residual) and not np.isnan(residual).all():
        cards.append((f"{np.nanmedian(residual):.2f}", "data χ² per datum (median)"))
    if posterior.held_out_chi2 is not None:
        cards.append((f"{posterior.held_out_chi2:.2f}", "held-out χ² per datum"))
    cards += _solver_cards(posterior)
    invalid = len(posterior.valid) - posterior.n_valid
    valid = "valid samples" + (f" ({invalid} invalid excluded)" if invalid else "")
    cards.append((f"{posterior.n_valid} of {len(posterior.valid)}", valid))
    body = "".join(
        f'<div class="card"><b>{escape(value)}</b><span>{escape(name)}</span></div>' for value, name in cards
    )
    return f'<div class="cards">{body}</div>' if cards else ""


def _solver_cards(posterior: PosteriorSamples) -> list[tuple[str, str]]:
    """Return how well the inner solvers converged: conjugate-gradient residual, directions of negative curvature."""
    cards = []
    for key, value in posterior.diagnostics.items():
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" or not array.size or not np.isfinite(array).any():
            continue
        if key == "cg_residual":
            worst = np.asarray(posterior.diagnostics.get("cg_residual_worst", array))
            label = f"CG residual (relative, last step; {np.nanmax(worst):.2g} at worst)"
            cards.append((f"{np.nanmax(array):.2g}", label))
        elif key.startswith("negative_curvature"):
            cards.append((f"{np.nansum(array):.4g}", "directions of negative curvature"))
    return cards


def _scalars(posterior: PosteriorSamples) -> dict[str, str]:
    rows = {}
    for key, value in posterior.diagnostics.items():
        array = np.asarray(value)
        if array.size == 1 or array.dtype.kind not in "biuf":
            rows[key] = _text(value)
        elif array.dtype.kind == "b":
            rows[key] = f"{np.count_nonzero(array)} of {array.size}"
        elif array.size and not np.isnan(array).all():
            low, middle, high = np.nanmin(array), np.nanmedian(array), np.nanmax(array)
            rows[key] = f"{middle:.4g} (from {low:.4g} to {high:.4g})"
    return rows


def _per_sample(posterior: PosteriorSamples) -> str:
    """Return one line per sample with every diagnostic that has one value per sample (or per slice: the median)."""
    count = len(posterior.valid)
    columns = {}
    for key, value in posterior.diagnostics.items():
        array = np.asarray(value)
        if array.ndim and array.shape[0] == count and array.dtype.kind in "biuf":
            columns[key] = array
    if not columns:
        return '<p class="sub">none recorded</p>'
    head = "".join(f"<th>{escape(key)}</th>" for key in columns)
    lines = []
    for index in range(count):
        cells = "".join(f"<td>{_cell(array[index])}</td>" for array in columns.values())
        lines.append(f"<tr><td>{index + 1}</td>{cells}</tr>")
    head = f"<thead><tr><th>sample</th>{head}</tr></thead>"
    return f'<div class="scroll"><table>{head}<tbody>{"".join(lines)}</tbody></table></div>'


def _cell(value: Any) -> str:
    array = np.asarray(value)
    if array.dtype.kind == "b":
        return "yes" if array.all() else '<span class="bad">no</span>'
    known = array[~np.isnan(array)]  # an invalid sample has none
    return f"{np.median(known):.4g}" if known.size else "nan" if array.size else ""


def _table(rows: Mapping[str, str]) -> str:
    if not rows:
        return '<p class="sub">none recorded</p>'
    lines = "".join(f"<tr><th>{escape(key)}</th><td>{escape(value)}</td></tr>" for key, value in rows.items())
    return f'<div class="scroll"><table><tbody>{lines}</tbody></table></div>'


def _text(value: Any) -> str:
    if isinstance(value, (float, np.floating)):
        return f"{value:.6g}"
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, (list, tuple)):
        shown = ", ".join(_text(item) for item in value[:12])
        return shown + (f", … ({len(value)})" if len(value) > 12 else "")
    return "-" if value is None else str(value)
