"""The script for a first run on a GPU works, as far as a CPU can tell."""

import json

import pytest


@pytest.mark.slow
def test_every_part_runs_on_a_cpu(benchmark_module, tmp_path):
    table = benchmark_module("gpu").main(["--tiny", "--out", str(tmp_path)])
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert len(rows) == len(table.rows) > 15
    assert not [row for row in rows if "FAILED" in f"{row['what']} {row['value']}"]
    assert {row["part"] for row in rows} >= {"floors", "tests", "exact", "mri", "ct", "memory", "together"}


def test_a_part_that_fails_is_a_row(benchmark_module, tmp_path):
    module = benchmark_module("gpu_table")
    import torch

    table = module.Table(tmp_path / "t.json", torch.device("cpu"), True, 100.0)
    table.part("broken", lambda _: 1 / 0)
    table.budget = -1.0
    table.part("late", lambda _: 1 / 0)
    assert [row.part for row in table.rows] == ["broken", "late"]
    assert "ZeroDivisionError" in table.rows[0].what and "budget" in table.rows[1].what


def test_without_a_gpu_only_the_small_sizes_run(benchmark_module, monkeypatch, capsys):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        benchmark_module("gpu").main([])
    assert "--tiny" in capsys.readouterr().err


def test_training_leaves_a_prior_to_bring_back(benchmark_module, tmp_path):
    from recon.priors import load_prior

    found = benchmark_module("gpu_train").main(["--tiny", "--out", str(tmp_path)])
    assert found["steps"] == 4 and found["error before"] is None
    assert json.loads((tmp_path / "train.json").read_text()) == found
    prior = load_prior(str(tmp_path / "tiny.safetensors"), shape=(16, 16))
    assert prior.error_std(0.1) > 0
    assert (tmp_path / "log.txt").read_text().count("step")
