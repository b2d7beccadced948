"""Write the tables of options into the pages, from the classes that declare them: `python docs/tables.py`.

A table stands between `<!-- options: NAME -->` and `<!-- end -->`; NAME is a modality, "run" for the options that every
modality has, or "verdicts" for the table of `benchmarks/verdicts.py`. A test compares the pages with what this script
would write.
"""

import dataclasses
import json
import re
from pathlib import Path

from recon import modalities
from recon.options import Options
from recon.run_options import RunConfig

FOLDER = Path(__file__).resolve().parent
VERDICTS = FOLDER.parent / "benchmarks" / "results" / "verdicts.json"
BLOCK = re.compile(r"(<!-- options: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(options: type[Options]) -> str:
    """Return the fields of an options class as a table in Markdown."""
    rows = ["| Option | Default | Meaning |", "|---|---|---|"]
    for field in dataclasses.fields(options):
        known = field.metadata
        option = field.name.replace("_", "-")
        if known["kind"] is bool:
            flag = f"`--{option}`, `--no-{option}`"
        else:
            flag = f"`--{option} {known['metavar'] or field.name.upper()}`"
        name = flag if known["kind"] is not None else f"`{field.name}=` (Python only)"
        value = str(field.default).lower() if known["kind"] is bool else field.default
        default = "" if value is None else f"`{value}`"
        missing = not all(choice in known["help"] for choice in known["choices"])
        choices = f": {', '.join(f'`{choice}`' for choice in known['choices'])}" if missing else ""
        unit = f", in {known['unit']}" if known["unit"] else ""
        rows.append(f"| {name} | {default} | {(known['help'] + choices + unit).replace('|', chr(92) + '|')} |")
    return "\n".join(["", *rows, "", ""])


def verdicts() -> str:
    """Return the verdicts on right runs and planted faults as a table in Markdown."""
    rows = ["| Case | Verdict | Residual | Held-out chi2 | PSNR | 90 % interval covers |", "|---|---|---|---|---|---|"]
    for name, row in json.loads(VERDICTS.read_text(encoding="utf-8")).items():
        case = name if row["right"] else f"**{name}**"
        forms = {"residual": "{:.2g}", "held_out": "{:.2g}", "psnr": "{:.1f} dB", "coverage": "{:.0%}"}
        cells = [form.format(row[key]) if key in row else "" for key, form in forms.items()]
        rows.append(f"| {case} | {row['verdict']} | {' | '.join(cells)} |")
    return "\n".join(["", *rows, "", ""])


def updated(page: str) -> str:
    """Return a page with its tables written anew."""

    def fill(found: re.Match[str]) -> str:
        if found[2] == "verdicts":
            return found[1] + verdicts() + found[3]
        options = RunConfig if found[2] == "run" else modalities.options_of(found[2])
        return found[1] + table(options) + found[3]

    return BLOCK.sub(fill, page)


if __name__ == "__main__":
    for path in sorted(FOLDER.rglob("*.md")):
        text = path.read_text(encoding="utf-8")
        if updated(text) != text:
            path.write_text(updated(text), encoding="utf-8")
            print(path)
