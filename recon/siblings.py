"""Guards against foreign packages called `operators` or `samplers`.

The distribution installs three import packages side by side, two of which have common names. A script folder or another
distribution with the same name would be imported silently instead; the guard turns that into one clear error.
"""

import importlib.util
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

SIBLINGS = ("operators", "samplers")
# Part of the docstring of each sibling's __init__; distinguishes ours from another distribution's in the same folder.
SIGNATURE = "diffrecon"


def check_siblings(home: Path | None = None) -> None:
    """Raise ImportError unless the siblings that Python would import are the ones shipped beside `recon`.

    Parameters
    ----------
    home
        The folder that holds `recon`, `operators` and `samplers`; by default the one this file was loaded from.

    Raises
    ------
    ImportError
        With the file that would be imported instead, and the remedy.
    """
    folder = Path(__file__).resolve().parent.parent if home is None else home.resolve()
    for name in SIBLINGS:
        expected = folder / name / "__init__.py"
        found = _origin(name)
        if found is None:
            raise ImportError(
                f"diffrecon needs its package {name!r} at {expected}, but Python does not find it: "
                "the installation is incomplete, reinstall it (pip install --force-reinstall diffrecon)"
            )
        if found != expected:
            raise ImportError(
                f"the name {name!r} is taken by {found}, but diffrecon needs its own package at {expected}: rename "
                "or uninstall the other one, or put diffrecon's folder before it on sys.path"
            )
        if SIGNATURE not in expected.read_text(encoding="utf-8", errors="replace"):
            raise ImportError(
                f"{expected} was overwritten by another distribution: uninstall that one and reinstall diffrecon "
                "(pip install --force-reinstall diffrecon)"
            )


def _origin(name: str) -> Path | None:
    """Return the file that `import name` would load (or has loaded), without importing it."""
    loaded = sys.modules.get(name)
    spec: ModuleSpec | None
    if loaded is not None:
        spec = getattr(loaded, "__spec__", None)
        path = getattr(loaded, "__file__", None)
    else:
        spec = importlib.util.find_spec(name)
        path = None
    if path is None and spec is not None:
        # A folder without __init__.py is a namespace package: it has a search path but no origin.
        path = spec.origin or next(iter(spec.submodule_search_locations or []), None)
    return Path(path).resolve() if path is not None else None
