"""Speed of CT: line integrals and their adjoint against other libraries, side by side in one process.

    python benchmarks/speed_ct.py [--json FILE] [--repeats N] [--only NAME ...] [--peers astra dds deepinv skimage]
        [--dds FOLDER]

The projector of the DDS paper is not a package: --dds names a checkout of github.com/HJ-harry/DDS (commit 509b140).
Peers that cannot be imported are left out, with the reason. Each peer is timed in turns with ours (ABAB ...), and the
median of the ratios of neighbours is reported (above one: ours is faster), so that a busy machine disturbs both. Times
are CPU times of this process. Building the matrix, with its transpose, is timed with the disk cache off: the first
time, when the system spends as long on handing out the memory, and the median of three more.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import sys
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import CT, FanBeam, ParallelBeam
from operators.ct.projectors.sparse import SparseProjector

_LONG = 40.0  # seconds of a peer after which a comparison is not repeated
_MOST = 16 * 180 * 2 * 256**2  # pixels that deepinv turns at once within the memory of a small machine

Pair = tuple[Callable[[Tensor], object], Callable[[Tensor], object]]


def parallel(n: int, views: int) -> tuple[ParallelBeam, int, float]:
    """Views over half a turn, a detector as long as the image's diagonal."""
    return ParallelBeam(np.arange(views) * np.pi / views, 2 * int(np.ceil(n / np.sqrt(2))) + 3, 1.0), n, 1.0


def fan(n: int, views: int) -> tuple[FanBeam, int, float]:
    """The distances of a clinical scanner, a field of 360 mm."""
    detectors = n + n // 2
    spacing = 1.35 * 360 / detectors * 1085.6 / 595.0
    return FanBeam(np.arange(views) * 2 * np.pi / views, detectors, spacing, 595.0, 1085.6), n, 360.0 / n


CASES = {
    "parallel 256 x 30": lambda: parallel(256, 30),
    "parallel 256 x 180": lambda: parallel(256, 180),
    "parallel 512 x 30": lambda: parallel(512, 30),
    "parallel 512 x 180": lambda: parallel(512, 180),
    "fan 256 x 180": lambda: fan(256, 180),
}


def main() -> None:
    """Run all comparisons, print a table and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="where to write the results")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS))
    parser.add_argument("--dds", type=Path, help="checkout of github.com/HJ-harry/DDS")
    arguments = parser.parse_args()
    os.environ["RECON_CACHE"] = "off"
    if arguments.dds:
        sys.path.append(str(arguments.dds))
    rows: list[dict[str, Any]] = []
    for name in arguments.only:
        rows += compare(name, arguments.peers, arguments.repeats)
    if arguments.json:
        result = {"threads": torch.get_num_threads(), "torch": torch.__version__, "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def compare(name: str, peers: list[str], repeats: int) -> list[dict[str, Any]]:
    """Build our matrix, and time it against each peer in both directions, batch 1 and 16."""
    geometry, n, pixel = CASES[name]()
    builds = []
    for _ in range(4):
        ours = None  # makes room
        start = time.process_time()
        ours = CT(geometry, (n, n), pixel, engine="sparse")
        builds.append(time.process_time() - start)
    assert ours is not None and isinstance(ours.projector, SparseProjector)
    images = torch.rand(16, n, n, generator=torch.Generator().manual_seed(0))
    sinograms = ours(images)
    one = np.median([clock(lambda: ours(images[0])) + clock(lambda: ours.H(sinograms[0])) for _ in range(11)]) / 2
    build = float(np.median(builds[1:]))
    row = {"case": name, "what": "matrix", "turns": ours.projector.turns, "MB": ours.projector.nbytes / 1e6}
    row |= {"first build ms": 1e3 * builds[0], "build ms": 1e3 * build, "applications": build / float(one)}
    rows = [shown(row)]
    for peer in peers:
        try:
            pair = PEERS[peer](geometry, n, pixel)
        except (ImportError, OSError) as error:
            print(f"{peer} is left out: {error}")
            continue
        if pair is None:
            continue
        for batch in (1, 16):
            if peer == "deepinv" and batch * pixels_turned(geometry, n) > _MOST:
                print(f"deepinv is left out at batch {batch}: it turns the image for all views at once, in memory")
                continue
            count = repeats if batch == 1 else max(repeats // 2, 1)
            for what, mine, theirs, x in (
                ("forward", ours, pair[0], images[:batch]),
                ("adjoint", ours.H, pair[1], sinograms[:batch]),
            ):
                label = {"case": name, "what": f"{peer} / ours, {what}, batch {batch}"}
                rows.append(shown({**label, **in_turns(lambda: theirs(x), lambda: mine(x), count)}))  # noqa: B023
    return rows


def pixels_turned(geometry: ParallelBeam | FanBeam, n: int) -> int:
    """Pixels of one image turned to every view, padded to its diagonal."""
    return len(geometry.angles) * 2 * n**2


def shown(row: dict[str, Any]) -> dict[str, Any]:
    """Print a row as soon as it is known, and pass it on."""
    values = [f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in row.items()]
    print("  ".join(value.removeprefix("case ").removeprefix("what ") for value in values), flush=True)
    return row


def in_turns(theirs: Callable[[], object], ours: Callable[[], object], repeats: int) -> dict[str, float]:
    """Median CPU milliseconds of both, and the median ratio of neighbouring runs; fewer of them where they are long."""
    ours()
    found: list[list[float]] = []
    while len(found) < repeats and sum(pair[0] for pair in found) < _LONG:
        found.append([clock(theirs), clock(ours)])
    times = 1e3 * np.array(found)
    a, b = np.median(times, axis=0).tolist()
    return {"ms": a, "ours ms": b, "ratio": float(np.median(times[:, 0] / times[:, 1]))}


def clock(function: Callable[[], object]) -> float:
    """CPU seconds that one call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def astra_pair(geometry: ParallelBeam | FanBeam, n: int, pixel: float) -> Pair:
    """ASTRA's CPU projectors, image by image."""
    for path in sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/*/lib/*.so.1[0-9]")):
        ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)  # its wheel wants the CUDA runtime even on a CPU
    import astra

    volume = astra.create_vol_geom(n, n)
    spacing, count = geometry.det_spacing / pixel, geometry.det_count
    if isinstance(geometry, FanBeam):
        distances = (geometry.source_to_iso / pixel, (geometry.source_to_detector - geometry.source_to_iso) / pixel)
        rays = astra.create_proj_geom("fanflat", spacing, count, geometry.angles, *distances)
        kind = "line_fanflat"
    else:
        rays, kind = astra.create_proj_geom("parallel", spacing, count, geometry.angles), "linear"
    tool = astra.OpTomo(astra.create_projector(kind, rays, volume))
    return lambda x: [tool.FP(i.numpy()) for i in x], lambda y: [tool.BP(i.numpy()) for i in y]


def dds_pair(geometry: ParallelBeam | FanBeam, n: int, pixel: float) -> Pair | None:
    """The projector of the DDS paper, and what it takes for the adjoint."""
    if isinstance(geometry, FanBeam):
        return None
    from physics.ct import CT as Published

    physics = Published(n, len(geometry.angles), circle=False, device="cpu")
    shape = physics.A(torch.zeros(1, 1, n, n)).shape[-2:]
    return lambda x: physics.A(x[:, None]), lambda y: physics.AT(torch.ones(len(y), 1, *shape))


def deepinv_pair(geometry: ParallelBeam | FanBeam, n: int, pixel: float) -> Pair | None:
    """The tomography operator of deepinv (parallel rays as long as the image is wide)."""
    if isinstance(geometry, FanBeam):
        return None
    from deepinv.physics import Tomography

    angles = torch.rad2deg(torch.tensor(geometry.angles, dtype=torch.float32))
    physics = Tomography(angles=angles, img_width=n, circle=False, device="cpu", normalize=False)
    like = physics.A(torch.zeros(1, 1, n, n))
    shape = like.shape[-2:]

    def adjoint(y: Tensor) -> object:
        return physics.A_adjoint(torch.ones(len(y), 1, *shape))

    return lambda x: physics.A(x[:, None]), adjoint


def skimage_pair(geometry: ParallelBeam | FanBeam, n: int, pixel: float) -> Pair | None:
    """The Radon transform of scikit-image, and its unfiltered inverse."""
    if isinstance(geometry, FanBeam):
        return None
    from skimage.transform import iradon, radon

    degrees = np.rad2deg(geometry.angles)

    def backward(y: Tensor) -> object:
        return [iradon(i.T.numpy(), degrees, output_size=n, filter_name=None, circle=False) for i in y]

    return lambda x: [radon(i.numpy(), degrees, circle=False) for i in x], backward


PEERS: dict[str, Callable[[Any, int, float], Pair | None]] = {
    "astra": astra_pair,
    "dds": dds_pair,
    "deepinv": deepinv_pair,
    "skimage": skimage_pair,
}


if __name__ == "__main__":
    main()
