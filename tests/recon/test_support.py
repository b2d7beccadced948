"""Devices and options."""

from pathlib import Path

import pytest

from recon.device import resolve_device
from recon.errors import ConfigError
from recon.options import RunConfig


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
        ("sample = 2", "unknown option 'sample'; did you mean 'samples'"),
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
