"""The table of benchmarks/reliability.py: every case is there, and every test that it names exists."""

import ast
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
NUMBERS = {"A": 12, "B": 14, "C": 8, "D": 8, "E": 6, "F": 18, "G": 8, "H": 7, "I": 4, "J": 6, "K": 5}


@pytest.fixture
def reliability(benchmark_module):
    return benchmark_module("reliability")


def test_every_case_is_in_the_table(reliability):
    assert {group[0]: len(cases) for group, cases in reliability.CASES.items()} == NUMBERS
    assert all(entries for cases in reliability.CASES.values() for entries in cases.values())


@pytest.mark.slow
def test_every_function_that_is_named_exists(reliability):
    """Without collecting: files and names of functions only."""
    entries = {entry for cases in reliability.CASES.values() for found in cases.values() for entry in found}
    known = Counter()
    for entry in filter(reliability.is_test, entries):
        file, *names = entry.partition("[")[0].split("::")
        inside = ast.parse((TESTS / file).read_text("utf-8")).body
        for name in names:
            (found,) = (node for node in inside if getattr(node, "name", None) == name)
            inside = found.body
        known[file] += 1
    assert len(known) > 25


@pytest.mark.slow
def test_every_test_that_is_named_is_collected(reliability):
    """With its parameters."""
    command = [sys.executable, reliability.__file__, "--collect"]
    found = subprocess.run(command, capture_output=True, text=True, cwd=TESTS.parent)
    assert found.returncode == 0, found.stdout[-3000:] + found.stderr[-1000:]
    assert "| all | 96 | 0 | 96 |" in found.stdout


def test_outcomes(reliability):
    """A case passes if all of its tests pass, and what was skipped is not run."""
    tests = reliability.Tests(["a.py::test_b", "a.py::test_c[x]", "a.py::test_d"], collect=False)
    tests.nodes |= {"a.py::test_b": ["1", "2"], "a.py::test_c[x]": ["3"]}
    tests.outcomes |= {"1": "passed", "2": "not run", "3": "failed"}
    assert [tests.outcome(entry)[0] for entry in tests.entries] == ["not run", "failed", "missing"]
    assert reliability.chosen("a.py::test_c[x y]", "a.py::test_c[1-x y-2]")
    assert not reliability.chosen("a.py::test_c", "a.py::test_cd[1]")
    assert reliability.chosen("a.py", "a.py::test_c")
    outcomes = [("A one", "passed"), ("A one", "failed"), ("B two", "not run")]
    rows = [{"group": group, "outcome": outcome, "case": "c", "missed": []} for group, outcome in outcomes]
    assert reliability.totals(rows) == {
        "A one": {"passed": 1, "not_run": 0, "total": 2},
        "B two": {"passed": 0, "not_run": 1, "total": 1},
        "all": {"passed": 1, "not_run": 1, "total": 3},
    }
