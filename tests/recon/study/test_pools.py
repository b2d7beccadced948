"""Processes of this machine: what each of them may use."""

from __future__ import annotations

import subprocess
import sys

import pytest

from recon.memory import Allotment
from recon.study.pools import processes
from recon.threads import cores


@pytest.mark.slow
def test_processes_divide_cores_and_memory() -> None:
    pool = processes(2)
    try:
        told = pool.submit(eval, "[__import__('recon.memory').memory._allotted, __import__('torch').get_num_threads()]")
        assert told.result(timeout=120) == [Allotment(workers=2), max(1, cores() // 2)]
    finally:
        pool.close()


def test_a_worker_knows_its_threads_before_torch_is_loaded() -> None:
    code = "import sys, recon.study.pools, recon.study.remote; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "False\n"
