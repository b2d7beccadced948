"""The guard against foreign packages that are called operators or samplers, each case in its own interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("recon", "operators", "samplers")


def run(code: str, *path: Path, site: bool = True) -> subprocess.CompletedProcess[str]:
    """Run code with these folders on the path; ``site=False`` hides an installed diffrecon."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, path))}
    flags = (["-P"] if sys.version_info >= (3, 11) else []) + ([] if site else ["-S"])
    command = [sys.executable, *flags, "-c", code]
    return subprocess.run(command, env=environment, cwd=path[0], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", ["operators", "samplers"])
@pytest.mark.parametrize("kind", ["package", "module", "namespace"])
def test_intruder_earlier_on_the_path(tmp_path: Path, name: str, kind: str) -> None:
    (tmp_path / name).mkdir()
    if kind == "package":
        (tmp_path / name / "__init__.py").touch()
    elif kind == "module":
        (tmp_path / name).rmdir()
        (tmp_path / f"{name}.py").touch()
    got = run("import recon", tmp_path, ROOT)
    if kind == "namespace":  # a folder without __init__.py loses against a real package anywhere on the path
        assert got.returncode == 0, got.stderr
        return
    last = got.stderr.strip().splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert str(tmp_path / name) in last
    assert "rename or uninstall" in last


def test_intruder_that_is_loaded_already(tmp_path: Path) -> None:
    (tmp_path / "operators.py").touch()
    code = f"import operators, sys; sys.path.insert(0, {str(ROOT)!r}); import recon"
    got = run(code, tmp_path)
    assert f"taken by {tmp_path.resolve() / 'operators.py'}" in got.stderr


def test_incomplete_and_overwritten_installations(tmp_path: Path) -> None:
    (tmp_path / "recon").mkdir()
    for file in ("__init__.py", "siblings.py"):
        (tmp_path / "recon" / file).write_bytes((ROOT / "recon" / file).read_bytes())
    assert "the installation is incomplete" in run("import recon", tmp_path, site=False).stderr
    for name in ("operators", "samplers"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text('"""Surgical instruments."""')
    assert "overwritten by another distribution" in run("import recon", tmp_path).stderr


def test_import_is_light_and_unknown_names_are_told() -> None:
    heavy = "[name for name in ('torch', 'numpy', 'h5py', 'scipy') if name in sys.modules]"
    got = run(f"import sys, recon.cli; print({heavy}); recon.Reconstruct", ROOT)
    assert got.stdout.strip() == "[]"
    assert "module 'recon' has no attribute 'Reconstruct'; it offers" in got.stderr
