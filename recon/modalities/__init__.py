"""The modalities: each is one package with its options, readers and preparation; its physics is in `operators`.

A package with ``options.OPTIONS`` and ``modality.MODALITY`` is a modality; so is an entry point of another
distribution in the group ``diffrecon.modalities`` (a `recon.modalities.base.Modality`). Nothing else in the engine
refers to a specific modality. Importing this package is cheap: a modality is loaded on first use.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from recon.options import Options, unknown_option
from recon.plugins import offered

if TYPE_CHECKING:
    from recon.modalities.base import Modality, TrainingImages
    from recon.modalities.protocols import Reader
    from recon.posterior_samples import PosteriorSamples

_GROUP = "diffrecon.modalities"


def shipped() -> list[str]:
    """Return the names of the modalities that ship with the package."""
    return [module.name for module in pkgutil.iter_modules(__path__) if module.ispkg]


def names() -> list[str]:
    """Return the names of all modalities, those that ship with the package first."""
    return [*shipped(), *sorted({entry.name for entry in offered(_GROUP)} - set(shipped()))]


def modality(name: str) -> Modality:
    """Return a modality by name.

    Raises
    ------
    ConfigError
        If there is no such modality.
    """
    if name in shipped():
        found: Modality = importlib.import_module(f"{__name__}.{name}.modality").MODALITY
        return found
    for entry in offered(_GROUP):
        if entry.name != name:
            continue
        other: Modality = entry.load()
        return other
    from recon.errors import ConfigError

    raise ConfigError(f"modality: expected one of {', '.join(names())}, got {name!r}")


def training_images(name: str) -> TrainingImages:
    """Return how training images are made from files of a modality.

    Raises
    ------
    ConfigError
        If there is no such modality, or no prior can be trained for it.
    """
    found = modality(name).training
    if found is None:
        from recon.errors import ConfigError

        raise ConfigError(f"modality: {name} has no training images")
    return found


def modalities() -> Iterator[Modality]:
    """Yield every modality."""
    yield from map(modality, names())


def options_of(name: str) -> type[Options]:
    """Return the options of a modality; for a shipped modality, without loading anything else of it."""
    if name in shipped():
        light: type[Options] = importlib.import_module(f"{__name__}.{name}.options").OPTIONS
        return light
    return modality(name).options


def readers_of(known: Modality) -> dict[str, Reader]:
    """Return the readers of a modality, including third-party ones (``diffrecon.readers.<name>``)."""
    from recon.files.dispatch import with_plugins

    return with_plugins(known.readers, known.name)


def find(source: Any) -> Modality:
    """Return the modality of a path, a recording or an array.

    Raises
    ------
    InputError
        If no modality knows it; the message describes the file where possible.
    """
    from recon.errors import InputError
    from recon.files.dispatch import is_known

    if isinstance(source, str | os.PathLike):
        known = next((each for each in _by_rank() if is_known(readers_of(each), source)), None)
        if known is None:
            raise InputError(_unknown(Path(source)))
        return known
    for known in modalities():
        if isinstance(source, known.recordings):
            return known
    raise InputError(f"source: expected a path, an array, a recording or a Problem, got {type(source).__name__}")


def opened(path: str | os.PathLike[str], **options: Any) -> tuple[Modality, Any]:
    """Open a file or folder of raw data, and return its modality with it; parameters as for `open_recording`."""
    from recon.errors import InputError
    from recon.files.dispatch import is_known, open_with

    file = Path(path)
    for known in _by_rank():
        # A reader that stumbles over a file while it sniffs is not responsible for it.
        if is_known(readers_of(known), file):
            return known, open_with(readers_of(known), file, options, known.formats)
    raise InputError(_unknown(file))


def open_recording(path: str | os.PathLike[str], **options: Any) -> Any:
    """Open a file or folder of raw data of any modality and format; slices are read on demand.

    Parameters
    ----------
    path : path
    **options
        Options of the reader.

    Returns
    -------
    Recording
        Of the class that belongs to its modality.

    Raises
    ------
    InputError
        If no reader knows it, it is damaged, or the reader has no such option.
    """
    return opened(path, **options)[1]


def _by_rank() -> Iterator[Modality]:
    """Yield modalities of other distributions first: their formats are more specific."""
    return map(modality, reversed(names()))


def _unknown(path: Path) -> str:
    """Describe a path that no modality knows."""
    from recon.files.dispatch import unreadable

    hints = [hint for known in modalities() if (hint := known.hint(path))] if path.exists() else []
    return unreadable(path, [f"{known.title} ({known.formats})" for known in modalities()], hints)


def of_operator(operator: Any) -> Modality | None:
    """Return the modality of an operator, or None."""
    return next((known for known in modalities() if isinstance(operator, known.operators)), None)


def of_result(posterior: PosteriorSamples) -> Modality | None:
    """Return the modality of a result: the recorded one or, for older results, that of operator or auxiliary images."""
    name = posterior.provenance.get("modality")
    if name in names():
        return modality(str(name))
    operator = posterior.provenance.get("operator")
    for known in modalities():
        plain = known.report.plain
        if operator in [kind.__name__ for kind in known.operators] or (plain and plain[0] in posterior.images):
            return known
    return None


def bind(known: Modality, named: Mapping[str, Any], given: Options | None = None) -> Options:
    """Return the options of a modality: an options object, updated with options given by name.

    Raises
    ------
    InputError
        For an option of another modality (which is named), or an invalid value.
    """
    from recon.errors import ConfigError, InputError

    if given is not None and not isinstance(given, known.options):
        raise InputError(
            f"options: the source is {known.title}, so expected recon.{known.options.__name__}(...), got "
            f"{type(given).__name__}"
        )
    own = set(known.options.__dataclass_fields__)
    wanted = {name: value for name, value in named.items() if name in own or value is not None}
    for name in wanted:
        if name in own:
            continue
        owners = [modality(other).title for other in names() if name in options_of(other).__dataclass_fields__]
        if owners:
            raise InputError(f"{known.title} has no option {name!r}; {name!r} is an option of {' and '.join(owners)}")
        raise ConfigError(f"{known.title}: {unknown_option(name, sorted(own))}")
    base = known.options() if given is None else given
    return type(base)(**{**{name: getattr(base, name) for name in own}, **wanted})


def __getattr__(name: str) -> type[Options]:
    """Return the options class of a modality by its own name."""
    for each in () if name.startswith("_") else names():
        if options_of(each).__name__ == name:
            return options_of(each)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
