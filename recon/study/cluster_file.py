"""The TOML file of `recon run --cluster`: which queue, and what a job of it has."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recon.errors import ConfigError
from recon.files.documents import read_toml
from recon.options import unknown_option

KINDS = ("slurm", "pbs", "lsf")
_TEXT, _LIST = "text", "a list of texts"
#: Keys of this file, and those passed to dask-jobqueue for each kind.
_OWN = {
    "kind": _TEXT,
    "workers": "an integer",
    "adapt": "[min, max]",
    "gpus_per_worker": "an integer",
    "wait_minutes": "a number",
}
_PASSED = {
    "queue": _TEXT,
    "account": _TEXT,
    "project": _TEXT,
    "memory": _TEXT,
    "walltime": _TEXT,
    "interface": _TEXT,
    "local_directory": _TEXT,
    "log_directory": _TEXT,
    "job_name": _TEXT,
    "python": _TEXT,
    "shebang": _TEXT,
    "death_timeout": _TEXT,
    "protocol": _TEXT,
    "job_script_prologue": _LIST,
    "job_extra_directives": _LIST,
    "job_directives_skip": _LIST,
    "worker_extra_args": _LIST,
    "cores": "an integer",
    "processes": "an integer",
}
_OF_KIND = {"slurm": {}, "pbs": {"resource_spec": _TEXT}, "lsf": {"lsf_units": _TEXT}}
#: A queue may well take hours; a day without any worker is a mistake.
_WAIT_MINUTES = 24 * 60
#: What the queue calls the account that pays.
_ACCOUNT = {"slurm": "account", "pbs": "account", "lsf": "project"}


@dataclass(frozen=True)
class ClusterFile:
    """A cluster, as a file describes it.

    Attributes
    ----------
    path : Path
    kind : str
        "slurm", "pbs" or "lsf".
    workers : tuple of int
        Least and largest number of workers.
    gpus : int
        GPUs of a worker.
    cores, processes : int
        Cores of a job, and workers among which they are divided.
    memory : str
        Memory of a job.
    wait_minutes : float
        How long a run waits while there is no worker at all.
    passed : mapping
        Further arguments of dask-jobqueue.
    """

    path: Path
    kind: str
    workers: tuple[int, int]
    gpus: int
    cores: int
    processes: int
    memory: str
    wait_minutes: float
    passed: Mapping[str, Any]

    @property
    def threads(self) -> int:
        """Threads of a worker."""
        return self.cores // self.processes


def read_cluster_file(path: str | os.PathLike[str]) -> ClusterFile:
    """Read and check the description of a cluster.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a key or value is unknown or missing.
    """
    content = read_toml(path)
    kind = content.get("kind")
    if kind not in KINDS:
        raise ConfigError(f"{path}: kind: expected one of {', '.join(KINDS)}, got {kind!r}")
    known = {**_OWN, **_PASSED, **_OF_KIND[kind]}
    for name, value in content.items():
        if name not in known:
            raise ConfigError(f"{path}: {unknown_option(name, sorted(known))}")
        if not _fits(value, known[name]):
            raise ConfigError(f"{path}: {name}: expected {known[name]}, got {value!r}")
    for name in ("cores", "memory"):
        if name not in content:
            raise ConfigError(f"{path}: {name}: expected the {name} of a job, got none")
    passed = {name: value for name, value in content.items() if name not in {*_OWN, "cores", "processes", "memory"}}
    if {"account", "project"} <= set(passed):
        raise ConfigError(f"{path}: account and project mean the same; expected one of them, got both")
    for name in ("account", "project"):
        if name in passed:
            passed[_ACCOUNT[kind]] = passed.pop(name)
    file = ClusterFile(
        Path(path),
        kind,
        _range(path, content),
        content.get("gpus_per_worker", 0),
        content["cores"],
        content.get("processes", 1),
        content["memory"],
        content.get("wait_minutes", _WAIT_MINUTES),
        passed,
    )
    _check(file)
    return file


def _fits(value: Any, kind: str) -> bool:
    if kind == _TEXT:
        return isinstance(value, str)
    if kind == _LIST:
        return isinstance(value, list) and all(isinstance(one, str) for one in value)
    if kind == "[min, max]":
        return isinstance(value, list) and len(value) == 2 and all(_fits(one, "an integer") for one in value)
    kinds = int | float if kind == "a number" else int
    return isinstance(value, kinds) and not isinstance(value, bool)


def _range(path: str | os.PathLike[str], content: Mapping[str, Any]) -> tuple[int, int]:
    """Return the least and the largest number of workers."""
    if ("workers" in content) == ("adapt" in content):
        raise ConfigError(f"{path}: expected either workers = N or adapt = [min, max]")
    low, high = content.get("adapt") or [content["workers"]] * 2
    if not (0 <= low <= high and high >= 1):
        raise ConfigError(f"{path}: expected 0 <= min <= max workers and at least one, got {low} to {high}")
    return low, high


def _check(file: ClusterFile) -> None:
    if file.cores < 1 or not 1 <= file.processes <= file.cores:
        raise ConfigError(f"{file.path}: expected 1 <= processes <= cores, got {file.processes} and {file.cores}")
    if not 0 < file.wait_minutes < float("inf"):
        raise ConfigError(f"{file.path}: wait_minutes: expected a finite number > 0, got {file.wait_minutes}")
    if file.gpus not in (0, 1):
        raise ConfigError(f"{file.path}: gpus_per_worker: a worker uses one GPU; expected 0 or 1, got {file.gpus}")
    if file.gpus and file.processes > 1:
        raise ConfigError(f"{file.path}: processes: workers with a GPU are jobs of one process, got {file.processes}")
