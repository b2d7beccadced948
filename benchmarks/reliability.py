"""The faults that the engine must survive: which tests show it, how many of them pass, and which do not.

    python benchmarks/reliability.py                     # all 96 cases: tests, kills and mutated files (minutes)
    python benchmarks/reliability.py --only A J --json reliability.json
    python benchmarks/reliability.py --collect           # only look whether the tests of the table exist

The table is in `reliability_cases.py`. A case passes if everything that is named for it passes; it is "not run" if some
of that was skipped, such as tests that need a GPU. The exit status is 1 if a case fails.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from reliability_cases import CASES

ROOT = Path(__file__).resolve().parents[1]
TESTS = ROOT / "tests"
PASSED, NOT_RUN, MISSING, FAILED = "passed", "not run", "missing", "failed"
#: The worst of what is named for a case decides.
ORDER = (PASSED, NOT_RUN, MISSING, FAILED)
MUTATIONS, SLICES, KILLS = 100, 40, 10


def chosen(entry: str, node: str) -> bool:
    """Tell whether a test, ``file::function[parameters]`` below tests/, is one that an entry names."""
    name, _, words = entry.partition("[")
    test, _, parameters = node.partition("[")
    return (test == name or test.startswith(name + "::")) and words.removesuffix("]") in parameters.removesuffix("]")


def is_test(entry: str) -> bool:
    """Tell whether an entry names tests and no script."""
    return not entry.startswith(("fuzz:", "kills:"))


class Tests:
    """A plugin of pytest that runs the tests that are named, and keeps what became of each.

    Parameters
    ----------
    entries : sequence of str
    collect : bool
        Whether the tests are only collected, which counts as passed.
    """

    def __init__(self, entries: Sequence[str], collect: bool) -> None:
        self.entries, self.collect = entries, collect
        self.nodes: dict[str, list[str]] = {entry: [] for entry in entries}
        self.outcomes: dict[str, str] = {}

    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        """Leave out the tests that nothing names."""
        kept = []
        for item in items:
            node = str(Path(item.path).relative_to(TESTS)) + item.nodeid[item.nodeid.index("::") :]
            named = [entry for entry in self.entries if chosen(entry, node)]
            for entry in named:
                self.nodes[entry].append(item.nodeid)
            if named:
                kept.append(item)
        config.hook.pytest_deselected(items=[item for item in items if item not in set(kept)])
        items[:] = kept

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note the worst outcome of setup, call and teardown."""
        word = {"passed": PASSED, "skipped": NOT_RUN, "failed": FAILED}[report.outcome]
        self.outcomes[report.nodeid] = worst([self.outcomes.get(report.nodeid, PASSED), word])

    def outcome(self, entry: str) -> tuple[str, int]:
        """Return the worst outcome of the tests of an entry, and their number."""
        nodes = self.nodes[entry]
        unknown = PASSED if self.collect else FAILED
        return worst([self.outcomes.get(node, unknown) for node in nodes]) if nodes else MISSING, len(nodes)


def worst(outcomes: Sequence[str]) -> str:
    """Return the worst of some outcomes."""
    return max(outcomes, key=ORDER.index)


def run_tests(entries: Sequence[str], collect: bool) -> Tests:
    """Run the tests that are named, or only collect them."""
    tests = Tests(entries, collect)
    files = sorted({str(TESTS / entry.partition("::")[0].partition("[")[0]) for entry in entries})
    there = [file for file in files if Path(file).is_file()]
    options = ["-q", "--no-header", "-p", "no:cacheprovider", "-c", str(ROOT / "pyproject.toml"), "-r", "fE"]
    if there:
        pytest.main([*options, *(["--collect-only", "-qq"] if collect else []), *there], plugins=[tests])
    return tests


def fuzzed(kinds: str) -> str:
    """Mutate files of some kinds."""
    import fuzz

    with tempfile.TemporaryDirectory() as folder:
        options = ["--n", str(MUTATIONS), "--seed", "1", "--json", str(Path(folder) / "fuzz.json")]
        return FAILED if fuzz.main([*options, "--kinds", *kinds.split()]) else PASSED


def killed(workers: str) -> str:
    """Kill a study at random moments, let it go on each time, and compare it with a straight run."""
    import study_runs

    with tempfile.TemporaryDirectory() as folder:
        found = study_runs.killed(Path(folder), SLICES, KILLS, int(workers), size=16)
    good = found["status"] == 0 and found["same bits"] and found["drawn again"] <= found["allowed"]
    return PASSED if good and found["kills"] == KILLS and not found["left over"] else FAILED


SCRIPTS: dict[str, Callable[[str], str]] = {"fuzz": fuzzed, "kills": killed}


def results(groups: Sequence[str], collect: bool = False) -> list[dict[str, Any]]:
    """Return group, case, outcome, number of tests, and what was not shown, of each case of some groups."""
    cases = [(group, name, entries) for group in groups for name, entries in CASES[group].items()]
    named = list(dict.fromkeys(entry for _, _, entries in cases for entry in entries))
    tests = run_tests([entry for entry in named if is_test(entry)], collect)
    found = {entry: tests.outcome(entry) for entry in tests.entries}
    for entry in named:
        if not is_test(entry):
            script, _, words = entry.partition(": ")
            found[entry] = (PASSED if collect else SCRIPTS[script](words), 1)
    rows = []
    for group, name, entries in cases:
        outcome = worst([found[entry][0] for entry in entries])
        missed = [f"{entry}: {found[entry][0]}" for entry in entries if found[entry][0] != PASSED]
        count = sum(found[entry][1] for entry in entries)
        rows.append({"group": group, "case": name, "outcome": outcome, "tests": count, "missed": missed})
    return rows


def totals(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, int]]:
    """Return the number of cases, and of those that passed and were not run, by group and in all."""
    names = [*dict.fromkeys(row["group"] for row in rows), "all"]
    mine = {name: [row["outcome"] for row in rows if name in (row["group"], "all")] for name in names}
    return {
        name: {"passed": found.count(PASSED), "not_run": found.count(NOT_RUN), "total": len(found)}
        for name, found in mine.items()
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Return the totals as a table in markdown, and the cases that did not pass."""
    lines = ["| group | passed | not run | total |", "|---|--:|--:|--:|"]
    lines += [f"| {name} | {n['passed']} | {n['not_run']} | {n['total']} |" for name, n in totals(rows).items()]
    lines += [f"{row['group']}: {row['case']}: {'; '.join(row['missed'])}" for row in rows if row["missed"]]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the cases and print the totals; return 1 if any case fails."""
    import torch

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    letters = {group[0]: group for group in CASES}
    parser.add_argument("--only", nargs="+", choices=letters, default=list(letters), help="groups")
    parser.add_argument("--collect", action="store_true", help="run nothing, only look whether the tests exist")
    parser.add_argument("--json", type=Path, help="where to write the results; groups that are not run stay in it")
    options = parser.parse_args(argv)
    rows = results([letters[letter] for letter in options.only], options.collect)
    print(f"\n{table(rows)}")
    if options.json:
        known = json.loads(options.json.read_text())["cases"] if options.json.exists() else []
        done = {row["group"] for row in rows}
        every = sorted([*rows, *(row for row in known if row["group"] not in done)], key=lambda row: row["group"])
        versions = {"python": platform.python_version(), "torch": str(torch.__version__)}
        options.json.write_text(json.dumps({**versions, "totals": totals(every), "cases": every}, indent=1) + "\n")
    return int(any(row["outcome"] in (MISSING, FAILED) for row in rows))


if __name__ == "__main__":
    sys.exit(main())
