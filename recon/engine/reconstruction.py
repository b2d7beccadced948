"""A source with everything resolved: which slices are drawn, how, and how they become one result."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from recon import modalities
from recon.device import compiling_pays, resolve_device
from recon.engine.assemble import assemble
from recon.engine.samplers import compared, resolve_sampler
from recon.engine.sampling_run import SamplingRun, Step
from recon.engine.slice_result import FailedSlice, SliceResult
from recon.engine.slices import choose_slices, of_slices
from recon.engine.start import Start
from recon.errors import InputError
from recon.modalities.protocols import Source
from recon.options import Options
from recon.posterior import Posterior
from recon.run_options import RunConfig, run_arguments
from recon.threads import threads_of_torch
from samplers import DDSVolume, Problem
from samplers.memory import keep_freed_memory

#: Options of every modality that are given by name.
_BY_NAME = ("quality", "holdout", "keep", "threads", "compile", "start", "start_sigma", "compare")


@dataclass(frozen=True, eq=False)
class Reconstruction:
    """What is computed for one source; `plan` makes one.

    Attributes
    ----------
    run : SamplingRun
    computing : mapping
        Settings of the computation, for provenance.
    problem : Problem or None
        A problem that the user has prepared, in place of a source.
    source : Source or None
    chosen : tuple of int
        The slices.
    threads : int or None
        Threads that draw; None for those that torch has.
    """

    run: SamplingRun
    computing: Mapping[str, Any]
    problem: Problem | None = None
    source: Source | None = None
    chosen: tuple[int, ...] = (0,)
    threads: int | None = None

    @property
    def units(self) -> list[tuple[int, ...]]:
        """The slices that are drawn together: each alone, or all of them where the sampler couples them."""
        return [self.chosen] if self._coupled else [(index,) for index in self.chosen]

    @property
    def _coupled(self) -> bool:
        return isinstance(self.run.sampler, DDSVolume) and self.source is not None

    def draw(self, unit: Sequence[int], step: Step | None = None) -> SliceResult:
        """Draw the samples of a unit; errors are those of `SamplingRun.slices`."""
        keep_freed_memory()
        with threads_of_torch(self.threads):
            if self.source is None:
                assert self.problem is not None
                return self.run.problem(self.problem, step)
            return self.run.slices(self.source, unit, step)

    def assemble(
        self,
        results: Iterable[SliceResult],
        failed: Sequence[FailedSlice] = (),
        described: Mapping[str, str] | None = None,
    ) -> Posterior:
        """Join the results of all units; see `recon.engine.assemble`.

        Parameters
        ----------
        results, failed
        described : mapping, optional
            What `provenance.describe_source` says of the source, if that is known.
        """
        if self.source is None:
            return assemble(results, failed, self._record({}, None), {}, stacked=False)
        modality = self.run.modality
        assert modality is not None
        alone = self.source.single or len(self.chosen) == 1
        flat = alone and not self._coupled
        geometry = {**of_slices(self.source.geometry, self.chosen), "axes": modality.axes[0 if flat else 1]}
        record = self._record(self.source.config, described or self.source.path)
        return assemble(results, failed, record, geometry, stacked=not flat and not self._coupled)

    def _record(self, config: Mapping[str, Any], source: Any) -> dict[str, Any]:
        return self.run.describe({**config, **self.computing}, source, self.chosen)


def plan(
    source: Any,
    prior: Any = "auto",
    sampler: Any = "dds",
    samples: int = 8,
    seed: int = 0,
    *,
    options: Options | None = None,
    slices: str | int | Sequence[int] | None = None,
    steps: int | None = None,
    device: str = "auto",
    batch_size: int | None = None,
    precision: str = "auto",
    **named: Any,
) -> Reconstruction:
    """Resolve the arguments of `recon.reconstruct`, and open the source; nothing is computed."""
    samples, seed, slices, steps, device, batch_size, precision = run_arguments(
        samples, seed, slices, steps, device, batch_size, precision
    )
    modality = modalities.of_operator(source.operator) if isinstance(source, Problem) else modalities.find(source)
    wishes = RunConfig(**{name: named.pop(name) for name in _BY_NAME if name in named})
    strategy, where = resolve_sampler(sampler, steps, modality, wishes.quality), resolve_device(device)
    holdout = wishes.holdout and samples > 1
    run = SamplingRun(
        prior,
        strategy,
        samples,
        seed,
        batch_size,
        where,
        precision,
        modality,
        holdout,
        wishes.kept,
        wishes.compile and compiling_pays(where),
        Start.given(wishes.start, wishes.start_sigma),
        compared(wishes.compare, modality),
    )
    computing = {
        "samples": samples,
        "device": str(where),
        "batch_size": batch_size,
        "precision": run.precision,
        "compile": run.compiled,
        "holdout": holdout,
        "keep": wishes.keep,
    }
    if wishes.start is not None:
        named_start = wishes.start if isinstance(wishes.start, str) else "array"
        computing |= {"start": named_start, "start_sigma": wishes.start_sigma}
    if run.compare:
        computing["compare"] = list(run.compare)
    if isinstance(source, Problem):
        if named or options is not None:
            raise InputError(f"a Problem is already prepared, so it takes no {', '.join(named) or 'options'}")
        return Reconstruction(run, computing, problem=source, threads=wishes.threads)
    assert modality is not None
    pieces = modality.source(source, modalities.bind(modality, named, options), seed)
    chosen = tuple(choose_slices(slices, len(pieces)))
    return Reconstruction(run, computing, source=pieces, chosen=chosen, threads=wishes.threads)


def warn_of(posterior: Posterior) -> None:
    """Warn about what is noted in a result."""
    for note in posterior.provenance["notes"]:
        warnings.warn(note, UserWarning, stacklevel=3)
