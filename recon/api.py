"""The main entry point: a measurement in, a posterior out."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recon import modalities
from recon.device import resolve_device
from recon.engine.assemble import assemble
from recon.engine.samplers import resolve_sampler
from recon.engine.sampling_run import SamplingRun
from recon.engine.slices import choose_slices, of_slices
from recon.errors import InputError
from recon.options import Options, RunConfig, run_arguments
from recon.posterior import Posterior
from samplers import DDSVolume, Denoiser, Problem, Sampler


def reconstruct(
    source: Any,
    prior: str | Path | Denoiser = "auto",
    sampler: str | Mapping[str, Any] | Sampler = "dds",
    samples: int = 8,
    seed: int = 0,
    *,
    options: Options | None = None,
    slices: str | int | Sequence[int] | None = None,
    steps: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "float32",
    progress: bool | None = None,
    **named: Any,
) -> Posterior:
    """Reconstruct raw data with uncertainty: samples, mean, std and their provenance.

    Everything that is not given is estimated from the measured data. A fully sampled image, where there is one, serves
    as a reference for comparison only.

    Parameters
    ----------
    source : path, recording, array or Problem
        A raw-data file or folder of any modality (see `recon info`), a recording from `recon.open`, an array that a
        modality accepts (see the documentation of each modality), or a prepared `samplers.Problem` in the scale of the
        prior; its operator determines the modality.
    prior : str, path or Denoiser
        See `recon.load_prior`; "auto" is the shipped prior of the modality.
    sampler : str, mapping or Sampler
        A name (`recon samplers` lists them), a name with sampler fields (``{"name": "dds", "eta": 0.5}``), or a
        `samplers.Sampler`.
    samples : int
        Number of posterior samples; at least 2 for a std map.
    seed : int
        Sample ``k`` of seed ``s`` is the same image whatever the number of samples or the batch size.
    options : Options, optional
        Options of the modality as one object, such as ``recon.<Modality>(...)``; see `recon.modalities`.
    slices : str, int or sequence of int, optional
        ``"10:20"``, ``12`` or a list; all by default.
    steps : int, optional
        Number of steps of the sampler.
    device : str
        ``"auto"``, ``"cpu"``, ``"cuda"``, ...
    batch_size : int, optional
        Number of samples computed together; all by default.
    precision : "float32", "tf32" or "bfloat16"
        Arithmetic of the network prior only; tf32 and bfloat16 are faster on hardware that supports them.
    progress : bool, optional
        Show a progress bar; by default only on a terminal.
    **named
        Options of the modality by name, on top of ``options``: ``acceleration=4``, ``views=32``, ``angles=1``. The
        documentation of each modality lists them; so does ``recon run --help``. ``holdout=False`` leaves out the
        held-out test, see `recon.engine.holdout`.

    Returns
    -------
    Posterior
        Arrays ``(sample, y, x)``, or ``(sample, slice, y, x)`` for a source of several slices, in the units of the
        modality.

    Raises
    ------
    InputError
        If the source or an argument is unusable; the message says what is wrong and what to do.
    DivergenceError
        If every sample became non-finite.
    """
    started = time.perf_counter()
    samples, seed, slices, steps, device, batch_size, precision = run_arguments(
        samples, seed, slices, steps, device, batch_size, precision
    )
    whole = isinstance(source, Problem)
    modality = modalities.of_operator(source.operator) if whole else modalities.find(source)
    strategy, where = resolve_sampler(sampler, steps, modality), resolve_device(device)
    holdout = RunConfig(holdout=named.pop("holdout", True)).holdout and samples > 1
    run = SamplingRun(prior, strategy, samples, seed, batch_size, where, precision, modality, holdout)
    computing = {
        "samples": samples,
        "device": str(where),
        "batch_size": batch_size,
        "precision": precision,
        "holdout": holdout,
    }
    if isinstance(source, Problem):
        if named or options is not None:
            raise InputError(f"a Problem is already prepared, so it takes no {', '.join(named) or 'options'}")
        parts = run.problem(source, progress)
        return assemble(parts, run.describe(computing, None, [0]), {}, modality, single=True, started=started)
    assert modality is not None
    pieces = modality.source(source, modalities.bind(modality, named, options), seed)
    chosen = choose_slices(slices, len(pieces))
    parts, refused = run.source(pieces, chosen, progress)
    chosen = [index for index in chosen if index not in refused]
    left_out = [f"slice {index} is left out: {reason}" for index, reason in refused.items()]
    together = isinstance(strategy, DDSVolume)
    single = (pieces.single or len(chosen) == 1) and not together
    geometry = {**of_slices(pieces.geometry, chosen), "axes": modality.axes[0 if single else 1]}
    record = run.describe({**pieces.config, **computing}, pieces.path, chosen)
    return assemble(parts, record, geometry, modality, single=single or together, started=started, left_out=left_out)
