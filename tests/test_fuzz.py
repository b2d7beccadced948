"""benchmarks/fuzz.py counts what happens to a reader, and finds nothing in a few mutations of every kind."""

import json
import sys
from pathlib import Path

import pytest

#: A child whose cases are read, raise, crash, hang, and are read again.
CHILD = """
import json, os, signal, sys, time
for number in range(int(sys.argv[1]), 5):
    print(json.dumps({"number": number}), flush=True)
    if number == 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 3:
        time.sleep(60)
    outcome = "untyped" if number == 1 else "read"
    print(json.dumps({"number": number, "outcome": outcome, "words": "ValueError"}), flush=True)
"""


@pytest.fixture
def fuzz(benchmark_module):
    return benchmark_module("fuzz")


def test_what_happens_to_a_child_is_counted(fuzz, monkeypatch, tmp_path):
    monkeypatch.setattr(
        fuzz.Campaign, "command", lambda self, start: [sys.executable, "-c", CHILD, str(max(start, self.numbers.start))]
    )
    campaign = fuzz.Campaign("nii", 0, range(5), 1.0, tmp_path / "kept")
    campaign.run()
    row = campaign.row()
    assert {name: row[name] for name in fuzz.OUTCOMES} == {
        **{"read": 2, "refused": 0, "signal": 1, "hang": 1, "untyped": 1, "memory": 0}
    }
    assert [(case["number"], case["outcome"]) for case in campaign.bad] == [(1, "untyped"), (2, "signal"), (3, "hang")]
    assert "status -11" in campaign.bad[1]["words"]
    assert sorted(entry.name for entry in (tmp_path / "kept").iterdir()) == ["nii-1", "nii-2", "nii-3"]
    assert "| nii | 5 | 2 | 0 | 1 | 1 | 1 | 0 |" in fuzz.table([row])


def test_untyped_errors_are_told_from_refusals(fuzz):
    from recon.errors import ShapeError

    def raising(error):
        def read(path):
            raise error

        return fuzz._outcome(read, Path("x"))[0]

    assert [raising(error) for error in (ShapeError("a"), ValueError("b"), MemoryError())] == [
        "refused",
        "untyped",
        "untyped",
    ]


@pytest.mark.slow
def test_a_few_mutations_of_every_kind(fuzz, tmp_path, capsys):
    assert len(fuzz.KINDS) == 26
    status = fuzz.main(["--n", "5", "--seed", "7", "--json", str(tmp_path / "fuzz.json"), "--seconds", "60"])
    found = json.loads((tmp_path / "fuzz.json").read_text())
    assert status == 0 and found["bad"] == [], capsys.readouterr().out
    assert [row["n"] for row in found["rows"]] == [5] * 26
