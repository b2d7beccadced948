"""Turn ``notebooks/source/*.py`` (cells marked by ``# %%``) into executed notebooks with their outputs.

python notebooks/build.py                 # all of them, full size
python notebooks/build.py 01_mri          # one
"""

from __future__ import annotations

import argparse
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent
LARGEST = 1_000_000


def read_source(path: Path) -> nbformat.NotebookNode:
    """Return the notebook, without outputs, that a source file describes."""
    notebook = nbformat.v4.new_notebook()
    notebook.metadata["kernelspec"] = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook.metadata["language_info"] = {"name": "python"}
    for number, block in enumerate(path.read_text(encoding="utf-8").split("# %%")[1:]):
        kind, _, body = block.partition("\n")
        if "[markdown]" in kind:
            lines = [line.removeprefix("#").removeprefix(" ") for line in body.strip().splitlines()]
            cell = nbformat.v4.new_markdown_cell("\n".join(lines))
        else:
            cell = nbformat.v4.new_code_cell(body.strip())
        cell["id"] = f"cell-{number}"  # stable, so that a rebuild changes nothing but outputs
        notebook.cells.append(cell)
    return notebook


def main() -> None:
    """Build the notebooks named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="names without suffix; all by default")
    chosen = parser.parse_args().names or sorted(path.stem for path in (FOLDER / "source").glob("*.py"))
    for name in chosen:
        notebook = read_source(FOLDER / "source" / f"{name}.py")
        NotebookClient(notebook, timeout=1800, resources={"metadata": {"path": str(FOLDER.parent)}}).execute()
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # wall-clock times
        text = nbformat.writes(notebook)
        if len(text) > LARGEST:
            raise SystemExit(f"{name}: {len(text)} bytes with outputs, at most {LARGEST} are wanted")
        (FOLDER / f"{name}.ipynb").write_text(text + "\n", encoding="utf-8")
        print(f"{name}.ipynb: {len(text) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
