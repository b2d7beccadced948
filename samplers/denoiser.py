"""The interface of a prior: the mean of the clean image given a noisy one.

Noise levels are always sigma: the state is ``x = x0 + sigma n`` and the denoiser returns ``E[x0 | x]``. For complex
images ``n`` is the standard complex normal, ``E|n|^2 = 1`` (variance split over the two parts), the same convention as
for the noise of complex data.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from operators.base import Space


@runtime_checkable
class Denoiser(Protocol):
    """The interface of a prior: the mean of the clean image given a noisy one.

    ``sigma_min`` and ``sigma_max`` are the range of noise levels in which it is valid, in image units; ``space`` is the
    image space, or None when any size is accepted. Plain attributes are enough.

    A prior may also know its error (`samplers.KnowsError`) or the covariance of its images
    (`samplers.CarriesCovariance`): DDS and moment matching weight the data by them.
    """

    @property
    def sigma_min(self) -> float: ...  # noqa: D102

    @property
    def sigma_max(self) -> float: ...  # noqa: D102

    @property
    def space(self) -> Space | None: ...  # noqa: D102

    def denoise(self, x: Tensor, sigma: float | Tensor) -> Tensor:
        """Return ``E[x0 | x0 + sigma n = x]`` for ``x`` of shape ``(batch, *space)``."""
