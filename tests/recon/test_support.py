"""Devices and options."""

from pathlib import Path

import pytest

from recon.device import resolve_device
from recon.engine.reconstruction import _BY_NAME
from recon.errors import ConfigError
from recon.run_options import RunConfig
from recon.settings import Settings


def test_devices() -> None:
    assert resolve_device("cpu").type == "cpu"
    assert resolve_device("auto").type in ("cpu", "cuda")
    with pytest.raises(ConfigError, match="got 'gpu'"):
        resolve_device("gpu")
    with pytest.raises(ConfigError, match="has no 'cuda:99'"):
        resolve_device("cuda:99")


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_options_from_toml(tmp_path: Path) -> None:
    path = write(tmp_path / "a.toml", 'prior = "gaussian"\nacceleration = 4\nsamples = 2')
    found = Settings.from_toml(path)
    assert found.run == RunConfig(prior="gaussian", samples=2) and found.options("mri").acceleration == 4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sample = 2", "unknown option 'sample'; did you mean 'samples'"),
        ("zzzz = 2", "known options: prior, sampler"),
        ("samples = 2.5", "samples: expected an integer, got 2.5"),
        ("samples = true", "samples: expected an integer, got True"),
        ('acceleration = "4"', "acceleration: expected a number, got '4'"),
        ("samples = ", "is not valid TOML"),
        (b"prior = '\xff'", "expected UTF-8 text, got the byte 0xff"),
        ("a = " + "[" * 5000 + "]" * 5000, "expected nesting up to 64 levels"),
        ("a" + ".a" * 5000 + " = 1", "expected nesting up to 64 levels"),
        ("seed = 0x" + "f" * 5000, "seed: expected an integer >= 0, got <int>"),
    ],
)
def test_bad_toml(tmp_path: Path, text: str | bytes, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Settings.from_toml(write(tmp_path / "a.toml", text))


def test_missing_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        Settings.from_toml(tmp_path / "absent.toml")


def test_reconstruct_takes_every_option_by_its_name_and_default() -> None:
    import inspect
    from dataclasses import fields

    import recon

    parameters = dict(inspect.signature(recon.reconstruct).parameters)
    # A study has many slices, and sends several of them through the network together.
    parameters["slices_together"] = inspect.signature(recon.reconstruct_many).parameters["slices_together"]
    for option in fields(RunConfig):
        # These go by name, like the options of the modality.
        if option.name not in _BY_NAME:
            assert parameters[option.name].default == option.default, option.name
