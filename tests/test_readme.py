"""The README keeps its word: its commands are there to be run, its Python runs, its shell lines exist."""

import dataclasses
import re
import shlex
from pathlib import Path

import numpy as np
import pytest
import torch

from operators import CartesianMRI, make_mask
from recon import demo
from recon.arguments import make_parser
from recon.engine.samplers import SAMPLERS
from recon.modalities import options_of
from recon.priors import GaussianPrior
from samplers import Problem, sample

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def readme():
    return (ROOT / "README.md").read_text(encoding="utf-8")


def command(readme, name):
    found = re.findall(rf"<!-- {name} -->\n```sh\n(.*?)\n```", readme, flags=re.DOTALL)
    assert len(found) == 1, f"expected one fenced block after <!-- {name} -->"
    return found[0]


def test_the_two_commands(readme):
    run, test = command(readme, "run-command"), command(readme, "test-command")
    assert run.startswith("python3 -m venv .venv && ") and run.endswith(".venv/bin/recon demo")
    assert test.startswith("python3 -m venv .venv && ") and test.endswith(".venv/bin/python -m pytest")
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    for line in (run, test):
        assert "\n" not in line
        assert "-c constraints.txt" in line
        extra = re.search(r'"\.\[(\w+)\]"', line)[1]
        assert re.search(rf"^{extra} = \[", project, flags=re.MULTILINE)
    assert (ROOT / "constraints.txt").is_file()


@pytest.mark.slow
def test_python_snippet_runs(readme, fastmri_file, tmp_path, monkeypatch):
    # Fewer steps than users get: what is tested is that the lines work together.
    monkeypatch.setitem(SAMPLERS, "dds", dataclasses.replace(SAMPLERS["dds"], steps=5))
    (snippet,) = re.findall(r"```python\n(.*?)```", readme, flags=re.DOTALL)
    scan = demo.simulate(acceleration=1, shape=(96, 160))
    fastmri_file("scan.h5", scan.kspace[None], ismrmrd_header=None, reconstruction_rss=None)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet, "README.md", "exec"), names)
    posterior = names["posterior"]
    assert posterior.samples.shape == (8, 96, 160)
    assert np.isfinite(posterior.samples).all()
    assert np.all(names["lower"] <= names["upper"])
    for file in ("result.h5", "result.png", "result.html"):
        assert (tmp_path / file).stat().st_size > 1000


def test_shell_lines_parse(capsys):
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    lines = [line for page in pages for line in re.findall(r"^recon .*$", page.read_text("utf-8"), flags=re.MULTILINE)]
    assert len(lines) >= 8
    for line in lines:
        words = shlex.split(line, comments=True)[1:]
        arguments = make_parser().parse_args(words)
        assert arguments.command == words[0], capsys.readouterr().err


def test_links_and_pictures_exist(readme):
    targets = re.findall(r"\]\(([^)#]+)\)", readme)
    assert "docs/images/demo.png" in targets
    for target in targets:
        assert target.startswith("https://") or (ROOT / target).exists(), target
    assert (ROOT / "docs/images/demo.png").stat().st_size <= 400_000


def test_documented_recipes_run():
    """The recipes of an operator and of a sampler are complete, and the loop accepts the sampler."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names = {"__name__": __name__}  # dataclasses look their module up, so it has to exist
    for block in re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL):
        exec(compile(block, "architecture.md", "exec"), names)
    operator = CartesianMRI(np.ones((8, 8), dtype=bool), shape=(8, 8))
    problem = Problem(torch.ones(8, 8, dtype=torch.complex64), operator, 0.1)
    drawn = sample(names["DenoiseOnly"](), problem, GaussianPrior.power_law((8, 8)), n_samples=2)
    assert drawn.samples.shape == (2, 8, 8)
    assert bool(drawn.valid.all())


def test_documented_masks_and_options_exist():
    text = (ROOT / "docs" / "mri.md").read_text(encoding="utf-8")
    named = text[text.index("Masks by name:") :].split("\n\n")[0]
    for name in re.findall(r"`([a-z0-9-]+)`", named):
        assert make_mask((64, 64), name, 4, 0.08).any(), name
    options = {"--" + field.name.replace("_", "-") for field in dataclasses.fields(options_of("mri"))}
    table = text[text.index("## Options of `recon run`") : text.index("Masks by name:")]
    assert set(re.findall(r"`(--[a-z-]+)", table)) - {"--config", "--help"} <= options


def test_documentation_pages_are_those_of_the_site():
    site = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    cards = {f"cards/{path.name}" for path in (ROOT / "recon" / "priors" / "weights").glob("*.md")}  # by docs/hooks.py
    assert set(re.findall(r": ([\w/-]+\.md)$", site, flags=re.MULTILINE)) == pages | cards
