"""The index of a study: one page for all results in a folder, worst first, with small pictures.

Results are read one by one, and of each only what its row shows stays in memory.
"""

from __future__ import annotations

import os
from collections import Counter
from html import escape
from pathlib import Path
from urllib.parse import quote

from recon.errors import InputError
from recon.files.atomic import atomic_path
from recon.files.hdf5 import is_hdf5
from recon.files.posterior_file import is_posterior
from recon.report.page import STYLE
from recon.report.png import data_uri
from recon.report.study_row import UNREADABLE, StudyRow, read_row
from recon.report.viewer import policy

#: Marks the page, so that it may be replaced by a new one.
GENERATOR = '<meta name="generator" content="diffrecon study index">'
#: From bad to good.
ORDER = ("failed", UNREADABLE, "doubtful", "unknown", "ok")
#: Longest side of a picture in pixels, by the largest number of results: the page stays below 10 MB.
_SIDES = ((1_000, 72), (2_500, 40), (6_000, 20))
#: Rows beyond this number are left out, best first.
_MOST_ROWS = 12_000
_LONGEST_REASON, _MOST_REASONS = 200, 3
INDEX_STYLE = """
.study td, .study th { padding-right: 1.1rem; }
.study th, .study td.slices { overflow-wrap: normal; white-space: nowrap; }
.study thead th { position: sticky; top: 0; background: #101216; }
.study tbody th { width: auto; min-width: 7rem; max-width: 22rem; white-space: normal; overflow-wrap: anywhere;
  font-weight: 600; color: inherit; }
.study td.number { text-align: right; white-space: nowrap; }
.study td ul { margin: 0; padding-left: 1.1rem; }
.study img { width: 4.5rem; height: 4.5rem; object-fit: contain; background: #000; }
.study a { color: #8ec2f5; }
.level, .card .level { border-radius: 6px; padding: .1rem .55rem; color: #101216; font-weight: 600;
  white-space: nowrap; }
.level.ok { background: #7ccf8a; } .level.unknown { background: #a3acb9; } .level.unreadable { background: #d59bf0; }
@media print { .study thead th { position: static; background: none; } .study a { color: inherit; } }
"""
_HEAD = ("", "result", "verdict", "reasons", "held-out χ²", "data χ²", "PSNR (dB)", "seconds", "worst slices")


def write_study_index(folder: str | os.PathLike[str], path: str | os.PathLike[str] | None = None) -> Path:
    """Write the index of the results in a folder and return its path.

    Parameters
    ----------
    folder : path-like
        Folder of results (``.h5``); folders inside it are not searched.
    path : path-like, optional
        The page; by default ``index.html`` in the folder.

    Raises
    ------
    InputError
        If the folder holds no result, or the page cannot be written.
    """
    place = Path(folder)
    target = place / "index.html" if path is None else Path(path)
    files = sorted(file for file in place.glob("*.h5") if is_hdf5(file) and _is_result(file))
    if not files:
        raise InputError(f"{place}: there is no result (.h5 of recon run) in this folder")
    side = next((side for most, side in _SIDES if len(files) <= most), 0)
    rows = sorted((_ranked(read_row(file, side), target.parent) for file in files), key=lambda row: row[:2])
    counts = Counter(ORDER[rank[0]] for rank, _, _ in rows)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(target) as temporary:
            temporary.write_text(_page(place, [row[2] for row in rows], counts), encoding="utf-8")
    except OSError as error:
        raise InputError(f"the index cannot be written to {target}: {error.strerror or error}") from error
    return target


def is_study_index(path: Path) -> bool:
    """Tell whether a file is a page that `write_study_index` wrote."""
    with open(path, "rb") as stream:
        return GENERATOR.encode() in stream.read(4096)


def _is_result(file: Path) -> bool:
    """Tell whether a file is a result, or one that cannot be read."""
    try:
        return is_posterior(file)
    except InputError:
        return True


def _ranked(row: StudyRow, beside: Path) -> tuple[tuple[int, float], str, str]:
    """Return what a row is sorted by, and its HTML."""
    worst = -row.held_out if row.held_out is not None else 0.0
    return (ORDER.index(row.level), worst), row.file.name, _html(row, beside)


def _html(row: StudyRow, beside: Path) -> str:
    picture = f'<img src="{data_uri(row.picture)}" alt="" loading="lazy">' if row.picture else ""
    page = row.file.with_suffix(".html")
    address = quote(os.path.relpath(page, beside)) if page.is_file() else ""
    name = f'<a href="{address}">{escape(row.file.stem)}</a>' if address else escape(row.file.stem)
    if row.slices:
        name += f'<br><span class="sub">{row.slices} slices</span>'
    numbers = [(row.held_out, ".2f"), (row.residual, ".2f"), (row.psnr, ".1f"), (row.seconds, ".0f")]
    cells = "".join(
        f'<td class="number">{"" if value is None else format(value, form)}</td>' for value, form in numbers
    )
    return (
        f'<tr><td>{picture}</td><th scope="row">{name}</th>'
        f'<td><span class="level {row.level}">{row.level}</span></td><td>{_reasons(row)}</td>{cells}'
        f'<td class="slices">{_slices(row, address)}</td></tr>\n'
    )


def _reasons(row: StudyRow) -> str:
    shown = [
        reason if len(reason) <= _LONGEST_REASON else reason[:_LONGEST_REASON] + "…"
        for reason in row.reasons[:_MOST_REASONS]
    ]
    if len(row.reasons) > _MOST_REASONS:
        shown.append(f"and {len(row.reasons) - _MOST_REASONS} more")
    return f"<ul>{''.join(f'<li>{escape(reason)}</li>' for reason in shown)}</ul>" if shown else ""


def _slices(row: StudyRow, address: str) -> str:
    def link(number: int) -> str:
        return f'<a href="{address}#slice={number}">{number}</a>' if address else str(number)

    return "<br>".join(f"{link(number)} ({escape(trouble)})" for number, trouble in row.worst)


def _page(folder: Path, rows: list[str], counts: Counter[str]) -> str:
    """Return the page; rows are sorted."""
    cards = "".join(
        f'<div class="card"><b>{counts[level]}</b><span class="level {level}">{level}</span></div>'
        for level in ORDER
        if counts[level]
    )
    title = f"Results in {folder.resolve().name}"
    left_out = f"<p>The {len(rows) - _MOST_ROWS} best rows are left out.</p>" if len(rows) > _MOST_ROWS else ""
    head = "".join(f'<th scope="col">{name}</th>' for name in _HEAD)
    styles = STYLE + INDEX_STYLE
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy([styles], [])}
{GENERATOR}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{styles}</style>
</head>
<body>
<h1>{escape(title)}</h1>
<div class="cards"><div class="card"><b>{len(rows)}</b><span>results</span></div>{cards}</div>
<p class="note">Worst first. A verdict is about one run: "ok" is no proof that an image is right. For research only, not
for diagnosis.</p>{left_out}
<div class="scroll"><table class="study"><thead><tr>{head}</tr></thead><tbody>
{"".join(rows[:_MOST_ROWS])}</tbody></table></div>
</body>
</html>
"""
