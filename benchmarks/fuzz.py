"""Mutated files of every kind: each is read or refused with a typed error, and no process crashes or hangs.

    python benchmarks/fuzz.py                                   # 2,000 mutations of each kind
    python benchmarks/fuzz.py --kinds fastmri --n 10000 --seed 1
    python benchmarks/fuzz.py --kinds nii --only 17 --keep out   # one case again, its file kept

Child processes read many files each, and are replaced when they end. A case is bad if the process ends by a signal,
takes longer than `--seconds`, raises anything but a `ReconError`, or needs more than 256 MiB more memory. The exit
status is 1 if any case is bad. Files that are read although they were changed are no fault: most formats have no
checksum. Linux only (memory is taken from /proc).
"""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
from fuzz_kinds import KINDS

RESULTS = Path(__file__).with_name("results") / "fuzz.json"
OUTCOMES = ("read", "refused", "signal", "hang", "untyped", "memory")
BAD = OUTCOMES[2:]
MOST_MIB, MOST_ADDRESS = 256, 3 * 2**30


def work(name: str, seed: int, numbers: range) -> None:
    """Read mutated files, and write one line before and one after each."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the readers' own words are of no interest
    kind = KINDS[name]
    here = Path.cwd()
    target = kind.make(here)
    content, others = target.read_bytes(), {file: file.read_bytes() for file in here.iterdir() if file != target}
    warnings.simplefilter("ignore")
    kind.read(target)  # the seed is good; imports are done
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MOST_ADDRESS, used + MOST_ADDRESS))
    for number in numbers:
        rng = np.random.default_rng([seed, zlib.crc32(name.encode()), number])
        for file, old in others.items():
            file.write_bytes(old)
        target.write_bytes(kind.mutate(rng, content, target))
        print(json.dumps({"number": number}), file=out)
        Path("/proc/self/clear_refs").write_text("5")  # peaks count from here
        before = _status("VmRSS")
        outcome, words = _outcome(kind.read, target)
        more = _status("VmHWM") - before
        if more > MOST_MIB:
            outcome, words = "memory", f"{more:.0f} MiB more; {words}"
        print(json.dumps({"number": number, "outcome": outcome, "words": words[:300]}), file=out)


def _outcome(read: Any, target: Path) -> tuple[str, str]:
    from recon.errors import ReconError

    try:
        read(target)
        return "read", ""
    except ReconError as error:
        return "refused", f"{type(error).__name__}: {error}"
    except Exception as error:
        frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "/recon/" in frame.filename]
        line = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else ""
        return "untyped", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}{line}"


def _status(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+)", Path("/proc/self/status").read_text())
    return int(found[1]) / 1024 if found else 0.0


class Campaign:
    """All cases of a kind, in as many child processes as it takes."""

    def __init__(self, name: str, seed: int, numbers: range, seconds: float, keep: Path | None) -> None:
        self.name, self.seed, self.numbers, self.seconds, self.keep = name, seed, numbers, seconds, keep
        self.counts: Counter[str] = Counter()
        self.bad: list[dict[str, Any]] = []
        self.longest = 0.0

    def run(self) -> None:
        start = self.numbers.start
        while start < self.numbers.stop:
            start = self._child(start)

    def command(self, start: int) -> list[str]:
        """Return the command line of a child."""
        command = [sys.executable, __file__, "--work", self.name, "--seed", str(self.seed)]
        return [*command, "--from", str(start), "--n", str(self.numbers.stop - start)]

    def _child(self, start: int) -> int:
        """Run a child from a case on; return the case to go on with."""
        command = self.command(start)
        with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, cwd=folder)
            try:
                return self._follow(child, start, Path(folder), errors)
            finally:
                child.kill()
                child.wait()
                child.stdout.close()  # type: ignore[union-attr]

    def _follow(self, child: subprocess.Popen[bytes], start: int, folder: Path, errors: Any) -> int:
        stream = child.stdout.fileno()  # type: ignore[union-attr]
        current, rest, since = start, b"", None
        while True:
            # The first case waits for the imports, too.
            ready, _, _ = select.select([stream], [], [], self.seconds if since is not None else 120)
            piece = os.read(stream, 2**16) if ready else b""
            if not piece:
                outcome = "signal" if ready else "hang"
                code = child.wait() if ready else 0
                if code == 0 and ready:
                    return self.numbers.stop
                if since is None:
                    errors.seek(0)
                    raise SystemExit(f"{self.name}: the child did not start: {errors.read()[-2000:].decode()}")
                words = f"exit status {code}" if ready else f"more than {self.seconds:g} s"
                self._record({"number": current, "outcome": outcome, "words": words}, folder)
                return current + 1
            *lines, rest = (rest + piece).split(b"\n")
            for line in map(json.loads, lines):
                current = line["number"]
                if "outcome" in line:
                    self.longest = max(self.longest, time.monotonic() - (since or time.monotonic()))
                    self._record(line, folder)
                since = time.monotonic()

    def _record(self, case: dict[str, Any], folder: Path) -> None:
        self.counts[case["outcome"]] += 1
        if case["outcome"] in BAD:
            self.bad.append(case)
            if self.keep is not None:
                shutil.copytree(folder, self.keep / f"{self.name}-{case['number']}", dirs_exist_ok=True)

    def row(self) -> dict[str, Any]:
        counts = {outcome: self.counts[outcome] for outcome in OUTCOMES}
        return {"kind": self.name, "n": sum(self.counts.values()), **counts, "longest_s": round(self.longest, 2)}


def table(rows: list[dict[str, Any]]) -> str:
    """Return the rows as a table in markdown."""
    lines = ["| kind | n | read | refused | signals | hangs | untyped errors | > 256 MiB |", "|---|" + "--:|" * 7]
    lines += [f"| {r['kind']} | {r['n']} | " + " | ".join(str(r[name]) for name in OUTCOMES) + " |" for r in rows]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Run the campaigns; return 1 if any case is bad."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=2000, help="mutations of each kind")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--from", type=int, default=0, dest="first", help="number of the first case")
    parser.add_argument("--only", type=int, help="run this case alone")
    parser.add_argument("--seconds", type=float, default=20, help="a case that takes longer hangs")
    parser.add_argument("--keep", type=Path, help="folder for the files of bad cases")
    parser.add_argument("--json", type=Path, default=RESULTS)
    parser.add_argument("--work", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args(argv)
    numbers = range(options.first, options.first + options.n)
    if options.only is not None:
        numbers = range(options.only, options.only + 1)
    if options.work:
        work(options.work, options.seed, numbers)
        return 0
    rows, bad = [], []
    for name in options.kinds:
        campaign = Campaign(name, options.seed, numbers, options.seconds, options.keep)
        campaign.run()
        rows.append(campaign.row())
        bad += [{"kind": name, **case} for case in campaign.bad]
        print(table([rows[-1]]).splitlines()[-1], flush=True)
        for case in campaign.bad[:5]:
            print(f"    {name} {case['number']}: {case['outcome']}: {case['words']}", flush=True)
    print(f"\n{table(rows)}")
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"seed": options.seed, "rows": rows, "bad": bad}, indent=1) + "\n")
    return int(bool(bad))


if __name__ == "__main__":
    sys.exit(main())
