"""Atomic writes, provenance, devices, options."""

import json
import os
from pathlib import Path

import pytest
import torch

from recon.device import resolve_device
from recon.engine.provenance import collect, plain
from recon.errors import ConfigError
from recon.files.atomic import atomic_path
from recon.options import RunConfig


def test_atomic_path_replaces_in_one_step(tmp_path: Path) -> None:
    target = tmp_path / "a.nii.gz"
    target.write_text("old")
    with atomic_path(target) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
        assert temporary.parent == tmp_path
        assert temporary.name.endswith("a.nii.gz")
    assert target.read_text() == "new"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("problem", [RuntimeError, KeyboardInterrupt, SystemExit])
def test_atomic_path_leaves_nothing_behind(tmp_path: Path, problem: type[BaseException]) -> None:
    with pytest.raises(problem), atomic_path(tmp_path / "a.h5") as temporary:
        temporary.write_text("half")
        raise problem
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(os.name != "posix", reason="permission bits are a POSIX thing")
def test_results_have_ordinary_permissions(tmp_path: Path) -> None:
    (tmp_path / "ordinary").touch()
    with atomic_path(tmp_path / "a.h5"):
        pass
    assert (tmp_path / "a.h5").stat().st_mode == (tmp_path / "ordinary").stat().st_mode


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


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="'gpu' is not a device"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="has no 'cuda:99'"):
        resolve_device("cuda:99")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_options_from_toml(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'prior = "gaussian"\nacceleration = 4\nsamples = 2')
    assert RunConfig.from_toml(path) == RunConfig(prior="gaussian", acceleration=4, samples=2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample = 2", "there is no option 'sample'; did you mean 'samples'"),
        ("zzzz = 2", "known keys: prior, sampler"),
        ("samples = 2.5", "samples must be of type int, got 2.5"),
        ("samples = true", "samples must be of type int, got True"),
        ('acceleration = "4"', "acceleration must be of type float"),
        ("samples = ", "is not valid TOML"),
        (b"prior = '\xff'", "is not valid TOML"),
        ("a = " + "[" * 5000 + "]" * 5000, "is not valid TOML"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RunConfig.from_toml(write(tmp_path / "a.toml", text))


def test_missing_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        RunConfig.from_toml(tmp_path / "absent.toml")


def test_reconstruct_takes_every_option_by_its_name_and_default() -> None:
    import inspect
    from dataclasses import fields

    import recon

    parameters = inspect.signature(recon.reconstruct).parameters
    for option in fields(RunConfig):
        assert parameters[option.name].default == option.default, option.name
