"""What a result records of its origin."""

import json
from pathlib import Path

import torch

from recon.engine.provenance import collect
from recon.files.plain_values import plain


def test_provenance_is_json_and_names_the_source_without_its_folder(tmp_path: Path) -> None:
    (tmp_path / "scan.npy").write_bytes(b"abc")
    record = collect(
        config={"mask": None}, seed=1, source=tmp_path / "scan.npy", slices=range(2), citations=["b", "a", "b"]
    )
    assert record["source"] == {
        "name": "scan.npy",
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert record["citations"] == ["a", "b"]
    assert record["libraries"]["torch"].startswith(torch.__version__.split("+")[0])
    assert record["date_utc"].endswith("+00:00")
    assert str(tmp_path) not in json.dumps(record)


def test_plain_values() -> None:
    assert plain({"a": torch.tensor([1.0]), 2: (Path("x"), 1j)}) == {"a": [1.0], "2": ["x", [0.0, 1.0]]}
