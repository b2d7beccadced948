"""Checks before a command starts: options that cannot work, files that must not be overwritten."""

import os
from collections.abc import Sequence
from pathlib import Path

from recon.errors import ConfigError, InputError, ReconError
from recon.options import RunConfig, require_precision


def check_settings(settings: RunConfig) -> None:
    """Refuse what cannot work before the first file is touched."""
    from operators.mri.masks import PATTERNS
    from recon.device import resolve_device
    from recon.engine.samplers import resolve_sampler
    from recon.priors.hub import require_known

    resolve_device(settings.device)
    resolve_sampler(settings.sampler, settings.steps)
    if settings.prior != "auto":
        require_known(settings.prior)
    require_precision(settings.precision)
    if settings.mask is not None and settings.mask not in PATTERNS:
        raise ConfigError(f"mask: there is no pattern {settings.mask!r}; choose one of {', '.join(PATTERNS)}")
    for name in ("samples", "steps", "batch_size", "coils", "calib_size"):
        value = getattr(settings, name)
        if value is not None and value < 1:
            raise ConfigError(f"{name}: must be 1 or more, got {value}")
    if settings.noise_std is not None and not 0 <= settings.noise_std < float("inf"):
        raise ConfigError(f"noise_std: must be 0 or more, got {settings.noise_std}")


def check_outputs(paths: Sequence[Path], force: bool) -> None:
    """Refuse to overwrite, and to compute for an hour what then cannot be written."""
    existing = [path for path in paths if path.exists()]
    if existing and not force:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        raise InputError(f"{existing[0]}{more} exists already; use --force to overwrite, or another folder")
    for folder in {path.parent for path in paths}:
        present = next(parent for parent in (folder, *folder.parents) if parent.exists())
        if not present.is_dir():
            raise InputError(f"{present}: is a file, expected a folder for the results")
        if not os.access(present, os.W_OK | os.X_OK):
            raise ReconError(f"{present}: no permission to write there; choose another folder for the results")
