"""The wheel: three packages and nothing else, importable from another folder."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel with the backend itself, which needs neither network nor another environment."""
    hatchling = pytest.importorskip(
        "hatchling.build", reason="the build backend is not installed (CI builds the wheel)"
    )
    folder = tmp_path_factory.mktemp("dist")
    before = Path.cwd()
    os.chdir(ROOT)
    try:
        return folder / hatchling.build_wheel(str(folder))
    finally:
        os.chdir(before)


@pytest.mark.slow
def test_content(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"operators", "recon", "samplers", "diffrecon-0.1.0.dist-info"}
    assert {f"{package}/py.typed" for package in ("operators", "recon", "samplers")} <= set(names)
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    shipped = {str(path.relative_to(ROOT)) for path in (ROOT / "recon").rglob("*.py")}
    assert shipped <= set(names)
    pages = {str(path.relative_to(ROOT)) for end in ("js", "css") for path in ROOT.glob(f"recon/report/*.{end}")}
    assert "recon/report/viewer.js" in pages <= set(names)
    entry_points = zipfile.ZipFile(wheel).read("diffrecon-0.1.0.dist-info/entry_points.txt").decode()
    assert "recon = recon.cli:main" in entry_points


@pytest.mark.slow
def test_import_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "installed")
    code = "import recon, operators, samplers; print(recon.__file__, recon.__version__, recon.Posterior.__name__)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    got = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert got.returncode == 0, got.stderr
    assert got.stdout.split() == [str(tmp_path / "installed" / "recon" / "__init__.py"), "0.1.0", "Posterior"]
