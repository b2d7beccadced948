"""The options of a reconstruction: names, defaults and help stand here and nowhere else."""

import difflib
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


#: Arithmetic of a network in reconstruction, and in training.
PRECISIONS, TRAINING_PRECISIONS = ("float32", "tf32", "bfloat16"), ("float32", "bfloat16")

#: What `recon.engine.samplers` knows by name; written out, for help must not wait for torch.
SAMPLER_NAMES = (
    "dds, dds-narrow, dds-volume, moment-matching, pula, pnp-dm, diffpir, daps, dps, pigdm, score-mri, score-ald, "
    "red-diff; exact (with --prior gaussian)"
)


def require_precision(precision: str) -> None:
    """Raise ConfigError for a precision that there is not."""
    from recon.errors import ConfigError

    if precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision!r}; expected {' or '.join(PRECISIONS)}")


def _option(default: Any, kind: type, text: str, metavar: str | None = None) -> Any:
    """Return a field whose default, type and help the command line and the TOML reader share."""
    return field(default=default, metadata={"kind": kind, "help": text, "metavar": metavar})


@dataclass(frozen=True)
class RunConfig:
    """How to reconstruct. Each field is an option of `recon run`, a key of its TOML file and an argument of the API."""

    prior: str = _option(
        "auto", str, "what is known about images: a name of `recon models`, or a file; auto: that of the kind of data"
    )
    sampler: str = _option("dds", str, f"how to draw from the posterior: {SAMPLER_NAMES}")
    samples: int = _option(8, int, "how many posterior samples to draw; the std map needs 2 or more", "N")
    steps: int | None = _option(None, int, "steps of the sampler (default: the sampler's own)", "N")
    seed: int = _option(0, int, "seed; the same seed gives the same samples", "N")
    device: str = _option("auto", str, "auto, cpu, cuda, cuda:1 or mps")
    mask: str | None = _option(
        None, str, "undersample fully sampled data by this pattern (random, equispaced, poisson, ...)", "PATTERN"
    )
    acceleration: float | None = _option(None, float, "undersample fully sampled data so many times", "R")
    center_fraction: float | None = _option(None, float, "fully sampled share of the centre of that pattern", "F")
    slices: str | None = _option(None, str, "which slices or frames: one number or A:B (default: all)", "A:B")
    noise_std: float | None = _option(
        None, float, "noise per sample of k-space, E|n|^2 = std^2, or of channels (default: estimated)", "STD"
    )
    batch_size: int | None = _option(None, int, "samples drawn together (default: all)", "N")
    precision: str = _option(
        "float32",
        str,
        f"of the network: {' or '.join(PRECISIONS)}; faster where there is hardware for it",
    )
    views: int | None = _option(None, int, "CT images: how many projections to simulate", "N")
    geometry: str = _option("fan", str, "CT images: fan (on an arc), fan-flat or parallel")
    arc: float | None = _option(None, float, "CT: degrees that the projections cover (default: all)", "DEG")
    photons: float | None = _option(None, float, "CT images: photons of a ray (default: no noise)", "N")
    electronic_noise: float = _option(0.0, float, "CT images: noise of the detector in photons", "STD")
    views_every: int = _option(1, int, "CT projections: use every so many of them", "N")
    reader: str | None = _option(
        None, str, "CT: options of the reader of the file, such as series=3 or rotation_centre=295.5", "NAME=VALUE"
    )
    pixel_size: float | None = _option(None, float, "CT: pixel size in mm (default: that of the file)", "MM")
    angles: int | None = _option(None, int, "ultrasound: how many waves; 1: straight down (default: all)", "N")
    elements: int | None = _option(None, int, "ultrasound: how many receiving elements (default: all)", "N")
    array: str = _option("uniform", str, "ultrasound: which elements: uniform (every n-th), random (sparse) or centre")
    decimation: int | None = _option(
        None, int, "ultrasound: keep every n-th demodulated sample (default: as many as the pulse needs)", "N"
    )
    depth: str | None = _option(None, str, "ultrasound: depths to reconstruct in mm (default: all)", "A:B")
    width: str | None = _option(None, str, "ultrasound: the same along the probe, as --width=-10:10", "A:B")
    attenuation: float = _option(0.0, float, "ultrasound: of the tissue in dB/(MHz cm)", "DB")
    model_error: float | None = _option(
        None, float, "share of the signal that the model may miss (default: from a first fit; CT: none)", "SHARE"
    )
    time_shift: float = _option(0.0, float, "ultrasound: samples lie this much later than the file says", "US")
    coils: int | None = _option(None, int, "compress to so many virtual coils (default: keep all)", "N")
    calib_size: int | None = _option(None, int, "largest side of the calibration region for coil maps", "N")

    def updated(self, values: Mapping[str, Any], origin: str) -> "RunConfig":
        """Return a copy with other values, each checked against the type of its field.

        Parameters
        ----------
        values
            Names and values.
        origin
            Where they were written; for messages.

        Raises
        ------
        ConfigError
            Names an unknown key (with the most similar known one) or a value of the wrong type.
        """
        from recon.errors import ConfigError

        kinds = {known.name: known.metadata["kind"] for known in fields(self)}
        for name, value in values.items():
            if name not in kinds:
                close = difflib.get_close_matches(name, kinds, n=1)
                hint = f"did you mean {close[0]!r}?" if close else f"known keys: {', '.join(kinds)}"
                raise ConfigError(f"{origin}: there is no option {name!r}; {hint}")
            allowed = (int, float) if kinds[name] is float else kinds[name]
            if isinstance(value, bool) or not isinstance(value, allowed):
                raise ConfigError(f"{origin}: {name} must be of type {kinds[name].__name__}, got {value!r}")
        return replace(self, **values)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> "RunConfig":
        """Read options from a TOML file of `name = value` lines; what it leaves out keeps its default.

        Raises
        ------
        ConfigError
            If there is no such file, it is not TOML, or a key or value does not fit.
        """
        from recon.errors import ConfigError

        try:
            with open(path, "rb") as stream:
                values = tomllib.load(stream)
        except OSError as error:
            raise ConfigError(f"{path}: cannot be read ({error.strerror or error})") from error
        except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError are ValueErrors
            reason = " ".join(str(error).split())
            raise ConfigError(f"{path}: is not valid TOML ({reason})") from error
        return cls().updated(values, str(path))
