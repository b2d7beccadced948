"""No code draws from, or seeds, a generator that others share."""

import ast
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
FILES = [path for package in ("operators", "samplers", "recon") for path in sorted((ROOT / package).rglob("*.py"))]

SEEDING = {"torch.manual_seed", "torch.seed", "torch.cuda.manual_seed", "torch.cuda.manual_seed_all"}
SEEDING |= {"torch.random.manual_seed", "torch.set_rng_state", "torch.cuda.set_rng_state"}
# Own generators, seeded where they are made.
NUMPY_OWN = {"default_rng", "Generator", "SeedSequence", "RandomState", "PCG64", "Philox", "BitGenerator"}
# Functions that draw from torch's shared generator unless they are given one.
TORCH_DRAWS = {"rand", "randn", "randint", "randperm", "normal", "bernoulli", "multinomial", "poisson"}
METHOD_DRAWS = {"normal_", "uniform_", "random_", "exponential_", "bernoulli_", "cauchy_", "geometric_", "log_normal_"}


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def offences(source: str) -> Iterator[str]:
    tree = ast.parse(source)
    # torch's initialisers take no generator; a fork puts the shared one back as it was.
    forked = {
        id(inside)
        for block in ast.walk(tree)
        if isinstance(block, ast.With) and any("fork_rng" in ast.dump(item.context_expr) for item in block.items)
        for inside in ast.walk(block)
    }
    for node in ast.walk(tree):
        if id(node) in forked:
            continue
        if isinstance(node, ast.Import | ast.ImportFrom):
            modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            if "random" in modules:
                yield f"line {node.lineno}: imports random"
        if not isinstance(node, ast.Call):
            continue
        name = dotted(node.func)
        last = name.rsplit(".", 1)[-1]
        own = any(keyword.arg == "generator" for keyword in node.keywords)
        shared_numpy = name.startswith(("np.random.", "numpy.random.")) and last not in NUMPY_OWN
        shared_torch = name.startswith("torch.") and (last in TORCH_DRAWS or last.endswith("n_like")) and not own
        if last.endswith("n_like") and not last.startswith("rand"):
            shared_torch = False
        unseeded = last in ("default_rng", "RandomState", "SeedSequence") and not node.args and not node.keywords
        method = isinstance(node.func, ast.Attribute) and last in METHOD_DRAWS and not own and "init" not in name
        if name in SEEDING or shared_numpy or shared_torch or unseeded or method:
            yield f"line {node.lineno}: {name}"


@pytest.mark.parametrize("path", FILES, ids=[str(path.relative_to(ROOT)) for path in FILES])
def test_sources(path: Path) -> None:
    assert not list(offences(path.read_text("utf-8")))


@pytest.mark.parametrize(
    "line",
    [
        *("torch.manual_seed(0)", "np.random.seed(0)", "np.random.normal()", "numpy.random.rand(3)", "import random"),
        *(
            "from random import choice",
            "torch.randn(3)",
            "torch.randn_like(x)",
            "x.normal_()",
            "np.random.default_rng()",
        ),
    ],
)
def test_the_scan_sees(line: str) -> None:
    assert list(offences(line))


@pytest.mark.parametrize(
    "line",
    [
        *("torch.randn(3, generator=g)", "np.random.default_rng(0)", "rng.normal()", "torch.zeros_like(x)"),
        "with torch.random.fork_rng():\n    torch.manual_seed(0)",
    ],
)
def test_the_scan_lets_pass(line: str) -> None:
    assert not list(offences(line))


@pytest.mark.filterwarnings("ignore::UserWarning")  # two steps on noise do not fit the data, and say so
def test_a_reconstruction_leaves_the_shared_generators_alone() -> None:
    import recon

    rng = np.random.default_rng(0)
    kspace = (rng.normal(size=(3, 32, 32)) + 1j * rng.normal(size=(3, 32, 32))).astype(np.complex64)
    kspace[:, 16, 16] += 100
    before = (random.getstate(), np.random.get_state(), torch.get_rng_state().clone())
    recon.reconstruct(
        kspace, prior="gaussian", acceleration=2, center_fraction=0.4, samples=2, steps=2, device="cpu", progress=False
    )
    after = (random.getstate(), np.random.get_state(), torch.get_rng_state())
    assert before[0] == after[0]
    np.testing.assert_equal(before[1], after[1])
    assert torch.equal(before[2], after[2])
