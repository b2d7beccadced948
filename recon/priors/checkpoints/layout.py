"""What a layout finds in a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from recon.priors.checkpoints.archive import Content


@dataclass(frozen=True)
class Checkpoint:
    """Weights and everything that is needed to use them; all but ``tensors`` can be written as JSON.

    Attributes
    ----------
    layout : str
        Which kind of file this was.
    architecture, network
        Name in `recon.priors.networks.table.ARCHITECTURES` and its arguments.
    parametrization : dict
        See `recon.priors.checkpoints.parametrization.parametrize`; sigmas per channel.
    channels : int
    tensors : dict of Tensor
        Averaged weights under the names of the network; not yet accounted for.
    weights : str
        Which weights these are.
    card : dict
        What users should know (``scale``, ``images``, ``gain``, ``licence``, ...).
    """

    layout: str
    architecture: str
    network: dict[str, Any]
    parametrization: dict[str, Any]
    channels: int
    tensors: dict[str, Tensor]
    weights: str
    card: dict[str, Any] = field(default_factory=dict)


class Layout(Protocol):
    """What a module of a layout offers."""

    TITLE: str

    def matches(self, content: Content) -> bool:
        """Tell by keys whether the file has this layout."""

    def read(self, content: Content) -> Checkpoint:
        """Read the configuration off names and shapes, and take the averaged weights."""

    def settings(self, original: Mapping[str, Any], network: Mapping[str, Any]) -> dict[str, Any]:
        """Translate the authors' configuration file into ``network`` and ``parametrization``.

        ``network`` is what names and shapes say already.
        """


def count(names: Mapping[str, Any], pattern: str) -> int:
    """Return how many of ``pattern.format(0)``, ``pattern.format(1)``, ... exist in a row."""
    number = 0
    while pattern.format(number) in names:
        number += 1
    return number
