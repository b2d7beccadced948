"""Every notebook is committed with outputs, matches its source, and runs from top to bottom at small size."""

import importlib.util
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parents[1]
SOURCES = sorted((ROOT / "notebooks" / "source").glob("*.py"))
#: What each notebook must have printed when it has run.
PRINTED = {
    "01_mri": ("spread over error", "result.h5"),
    "02_uncertainty": (
        "exact draws",
        "spread / error",
        "times as wide as raw ones",
        "promised: at least",
        "sampler.name is",
    ),
    "03_ct": ("posterior mean", "raw 90 % intervals", "limited angle:"),
    "04_priors": ("network against", "held-out PSNR", "raw 90 % intervals", "every tensor accounted for"),
    "05_ultrasound": ("trained prior, 1 wave", "data residual", "rank correlation of std and error"),
}


@pytest.fixture(scope="module")
def read_source():
    spec = importlib.util.spec_from_file_location("notebook_build", ROOT / "notebooks" / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.read_source


def test_there_are_notebooks():
    assert [path.stem for path in SOURCES] == list(PRINTED)
    assert sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb")) == [path.stem for path in SOURCES]


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_committed_notebook_is_that_of_its_source_and_has_outputs(source, read_source):
    path = ROOT / "notebooks" / f"{source.stem}.ipynb"
    assert path.stat().st_size <= 1_000_000
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    assert [cell.source for cell in committed.cells] == [cell.source for cell in read_source(source).cells]
    outputs = [output for cell in committed.cells for output in cell.get("outputs", [])]
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 5
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.stem)
def test_notebook_runs_at_small_size(source, read_source, monkeypatch):
    monkeypatch.setenv("DIFFRECON_NOTEBOOK_SIZE", "small")
    # The kernel imports the packages of this checkout, as the tests do.
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = read_source(source)
    NotebookClient(notebook, timeout=180, resources={"metadata": {"path": str(ROOT)}}).execute()
    printed = "".join(o.get("text", "") for cell in notebook.cells for o in cell.get("outputs", []))
    assert [words for words in PRINTED[source.stem] if words not in printed] == []
