"""A modality of another distribution: real images blurred along x, with their true image in the file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from operators import LinearOperator, Space
from recon.images.augment import draw_real_images
from recon.images.sources import Slice, SourceConfig
from recon.modalities.base import Condition, Export, Modality, ReportStyle, TrainingImages, spread
from recon.modalities.prepared import Prepared
from recon.modalities.protocols import Findings
from recon.modalities.recording import Recording, checked
from recon.options import Options, option
from samplers import Problem

ENDING = ".blur.npz"


@dataclass(frozen=True)
class Deconvolution(Options):
    """How wide the blur is, and how much noise is added."""

    blur: float = option(1.5, float, "standard deviation of the blur", "PIXELS", unit="pixels", above=0)
    noise: float = option(0.1, float, "standard deviation of the noise that is added", "STD", above=0)


class Blur(LinearOperator):
    """Periodic convolution with a Gaussian along x."""

    def __init__(self, shape: tuple[int, int], width: float) -> None:
        space = Space(shape, torch.float32)
        super().__init__(space, space)
        self.gain = torch.exp(-2 * (torch.pi * width * torch.fft.rfftfreq(shape[1])) ** 2)

    def _forward(self, x: Tensor) -> Tensor:
        return torch.fft.irfft(torch.fft.rfft(x) * self.gain, n=x.shape[-1])

    def _adjoint(self, y: Tensor) -> Tensor:
        return self._forward(y)


@dataclass(frozen=True, eq=False)
class BlurFile(Recording):
    """True images of a file, ``(y, x)``."""

    size: tuple[int, int] = (0, 0)

    @property
    def shape(self) -> tuple[int, ...]:
        return self.size

    def check(self, values: Any, where: str) -> np.ndarray:
        return checked(values, self.size, where, complex_numbers=False)


def read(path: Path) -> BlurFile:
    images = np.load(path)["images"]
    return BlurFile(path, "blur", len(images), lambda i: images[i], images.shape[1:])


READERS: Mapping[str, Any] = {
    "blur": SimpleNamespace(sniff=lambda path: path.is_file() and path.name.endswith(ENDING), read=read)
}


class BlurSource:
    """Blurred images of a file."""

    geometry: Mapping[str, Any] = {"voxel_size_mm": (1.0, 1.0, 1.0)}
    retrospective = True

    def __init__(self, source: Path | str | BlurFile, options: Deconvolution, seed: int) -> None:
        self.recording = source if isinstance(source, BlurFile) else read(Path(source))
        self.options, self.seed, self.path = options, seed, self.recording.path
        self.single, self.config = len(self.recording) == 1, asdict(options)

    def __len__(self) -> int:
        return len(self.recording)

    def prepare(self, index: int, device: torch.device | str) -> Prepared:
        image = torch.from_numpy(self.recording[index]).to(device)
        operator = Blur(self.recording.size, self.options.blur).to(device)
        generator = torch.Generator().manual_seed(self.seed + index)
        y = operator(image) + self.options.noise * torch.randn(image.shape, generator=generator).to(device)
        found = {"blur": self.options.blur, "noise_std": self.options.noise, "scale": 1.0}
        return Prepared(problem=Problem(y, operator, self.options.noise), images={"blurred": y}, diagnostics=found)

    def reference(self, index: int) -> np.ndarray:
        return self.recording[index]


def load_slices(root: Path, source: SourceConfig, held_out: bool) -> list[Slice]:
    files = sorted(root.glob(source.pattern))
    chosen = [file for file in files if file.name.startswith(tuple(source.held_out)) == held_out]
    return [
        Slice(image, np.ones(image.shape, bool), (1.0, 1.0), source.planes[0], f"{file.name}:{k}")
        for file in chosen
        for k, image in enumerate(read(file))
    ]


DESCRIPTION = SimpleNamespace(
    summary=lambda recording: f"{len(recording)} blurred image(s)",
    sampling=lambda recording, options: f"blur of {options.blur:g} pixels",
    lines=lambda recording: [f"image: {recording.size[0]} x {recording.size[1]}"],
    inspect=lambda recording: Findings(
        [f"slice {i}: largest value {image.max():.3g}" for i, image in enumerate(recording)]
    ),
)
MODALITY = Modality(
    name="deconvolution",
    title="deconvolution",
    options=Deconvolution,
    readers=READERS,
    formats=f"files *{ENDING}",
    recordings=(BlurFile,),
    source=BlurSource,
    prior="gaussian",
    operators=(Blur,),
    description=DESCRIPTION,
    samplers={"exact": {"iterations": 400}},
    doubts="width of the blur",
    undersampled_by="--blur",
    conditions=lambda posterior: {"blur": Condition(spread(posterior, "blur"))},
    report=ReportStyle(plain=("blurred", "Blurred"), values="Pixel values are those of the file."),
    exports={"npy": Export(("blur",), "{stem}.npy", lambda posterior, path, recording: np.save(path, posterior.mean))},
    training=TrainingImages(1, "1 = 1", load_slices, draw_real_images, lambda item, k: torch.from_numpy(item.image)),
)
