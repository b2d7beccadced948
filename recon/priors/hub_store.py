"""Published networks by name: their descriptions, the cache of their files, and downloads on request.

Nothing is downloaded unless `download` is called (``recon models download NAME``), and only over https, redirects
included. Where no sha256 is published (null in ``hub.json``), a file is verified by its tensors (names, shapes, finite
values and number of parameters), and the sha256 of the first download is recorded beside it: from then on every other
file is refused.
"""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from http.client import HTTPException
from pathlib import Path
from typing import Any, BinaryIO

from recon.errors import CheckpointError, InputError, ReconError
from recon.files.atomic import atomic_path
from recon.files.documents import read_json
from recon.priors.checkpoints.prior import CheckpointPrior

HUB_FILE = Path(__file__).with_name("hub.json")
SCHEMES = ("https://", "file://")
TIMEOUT_S = 30
# Files contain at most weights, their average, and three arrays of an optimizer, as float32, and other records.
_BYTES_PER_PARAMETER, _OTHER_BYTES = 5 * 4, 16 * 2**20


def cache_folder() -> Path:
    """Return the folder for files of published networks: ``RECON_CACHE``, or ``diffrecon`` in the user's cache."""
    given = os.environ.get("RECON_CACHE")
    if given:
        return Path(given).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "diffrecon"


def entries() -> dict[str, dict[str, Any]]:
    """Return the descriptions of the published networks, by name."""
    try:
        return {entry["name"]: entry for entry in read_json(HUB_FILE, CheckpointError)["models"]}
    except CheckpointError as error:
        raise CheckpointError(f"{error}; reinstall diffrecon") from error
    except (KeyError, TypeError) as error:
        raise CheckpointError(f"{HUB_FILE} is damaged ({error}); reinstall diffrecon") from error


def find_entry(name: str) -> dict[str, Any]:
    """Return the entry of a name, or raise InputError that lists the known names."""
    known = entries()
    if name not in known:
        raise InputError(f"unknown published network {name!r}; choose one of {', '.join(known)}")
    return known[name]


def cached_file(entry: dict[str, Any]) -> Path:
    """Return the path for the file of an entry, whether it exists or not."""
    return cache_folder() / entry["name"] / entry["file"]


def expected_sha256(entry: dict[str, Any]) -> str | None:
    """Return the published sha256 of an entry, or else the one recorded at its first download; None before that.

    Raises
    ------
    CheckpointError
        If the record is damaged.
    """
    record = _record(entry)
    if entry["sha256"] or not record.is_file():
        return str(entry["sha256"]) if entry["sha256"] else None
    with open(record, "rb") as stream:
        digest = stream.read(66).decode("ascii", "replace").strip()
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise CheckpointError(f"{record}: expected a sha256 recorded at a download; delete it to accept the next file")
    return digest


def _record(entry: dict[str, Any]) -> Path:
    path = cached_file(entry)
    return path.with_name(path.name + ".sha256")


def require_file(entry: dict[str, Any]) -> Path:
    """Return the cached file of an entry, or raise InputError that says how to get it."""
    path = cached_file(entry)
    if not path.is_file():
        name = entry["name"]
        ways = [f"put a copy at {path}"]
        if entry["url"]:
            ways.insert(0, f"fetch it with 'recon models download {name}'")
        note = f" ({entry['link']})" if entry["link"] else ""
        raise InputError(f"prior {name!r} is not on this computer: {', or '.join(ways)}; see {entry['page']}{note}")
    return path


def load_published(name: str, **options: Any) -> CheckpointPrior:
    """Load a published network from the cache.

    Parameters
    ----------
    name : str
        Name of the network.
    **options
        Options of `recon.priors.checkpoints.load_checkpoint`.

    Raises
    ------
    InputError
        If its file is not in the cache; the message says how to get it.
    CheckpointError
        If the file is damaged, or contains a different network.
    """
    entry = find_entry(name)
    return verified(require_file(entry), entry, **options)


def download(name: str, force: bool = False) -> Path:
    """Download the file of a published network into the cache, verify it, and return its path.

    Raises
    ------
    InputError
        If the name is unknown, there is no link, or the file already exists.
    CheckpointError
        If the download is not that network (by its sha256, published or recorded, and by its tensors), or larger than
        such a network can be; nothing is kept.
    ReconError
        If the link is dead, leads to an address that is not https, or the connection failed.
    """
    entry = find_entry(name)
    path = cached_file(entry)
    url = entry["url"]
    by_hand = f"get it manually from {entry['page']} and put it at {path}"
    if not url:
        raise InputError(f"{name} cannot be downloaded: {entry['link']}; {by_hand}")
    if not url.startswith(SCHEMES):
        raise InputError(f"{name}: downloads from {url} are refused; only {' and '.join(SCHEMES)} are allowed")
    if path.exists() and not force:
        raise InputError(f"{path} already exists; use --force to download it again")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_path(path) as temporary:
            try:
                _fetch(url, temporary, _BYTES_PER_PARAMETER * entry["parameters"] + _OTHER_BYTES)
                digest = verified(temporary, entry).card["sha256"]
            except CheckpointError as error:
                reason = str(error).replace(str(temporary), url)
                raise CheckpointError(
                    f"{name}: the download is not this network: {reason}. Nothing was kept; {by_hand}"
                ) from error
        if not entry["sha256"]:
            with atomic_path(_record(entry)) as temporary:
                temporary.write_text(f"{digest}\n", encoding="ascii")
    except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
        raise ReconError(f"{name}: the link {url} is dead or unreachable ({error}); try again, or {by_hand}") from error
    except OSError as error:
        raise ReconError(f"{name}: cannot write {path} ({error.strerror or error}); set RECON_CACHE") from error
    return path


class _OnlySecure(urllib.request.HTTPRedirectHandler):
    """Follows redirects to https only."""

    def redirect_request(
        self, req: urllib.request.Request, fp: Any, code: int, msg: str, headers: Any, newurl: str
    ) -> urllib.request.Request | None:
        if not newurl.lower().startswith("https://"):
            raise urllib.error.URLError(f"it redirects to {newurl}, which is refused: only https is allowed")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def open_url(url: str) -> BinaryIO:
    """Open an address; proxies are those of the environment."""
    opened: BinaryIO = urllib.request.build_opener(_OnlySecure).open(url, timeout=TIMEOUT_S)
    return opened


def _fetch(url: str, path: Path, limit: int) -> None:
    """Download a file of at most `limit` bytes."""
    count = 0
    with open_url(url) as source, path.open("wb") as target:
        while piece := source.read(2**20):
            count += len(piece)
            if count > limit:
                raise CheckpointError(f"{url}: more than {limit:,} bytes, the most that its parameters can take")
            target.write(piece)


def verified(path: Path, entry: dict[str, Any], **options: Any) -> CheckpointPrior:
    """Load a file as the network of an entry; raise CheckpointError if it is another file or network."""
    # Imported late: listing names does not need the networks.
    from recon.priors.checkpoints import load_checkpoint

    prior = load_checkpoint(path, card={**entry, "sha256": expected_sha256(entry)}, **options)
    if prior.n_parameters != entry["parameters"] or prior.card["layout"] != entry["layout"]:
        raise CheckpointError(
            f"{path}: contains a network of layout {prior.card['layout']} with {prior.n_parameters:,} parameters, but "
            f"{entry['name']} is {entry['layout']} with {entry['parameters']:,}"
        )
    return prior
