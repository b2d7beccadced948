"""Network inference: memory layout, precision, compilation, padding, and images per call.

What a network computes is up to its prior; this module only makes it fast and limits its memory.
``benchmarks/speed_network.py`` measures each of these choices, and by how much they change the images.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from recon.errors import ConfigError, ReconError
from recon.memory import available_memory
from recon.priors.networks.blocks import positions
from recon.run_options import require_precision

#: Value of ``compiled`` for CUDA graphs.
GRAPHS = "cuda-graphs"
#: Images per call, if memory allows.
_MOST = {"cpu": 4, "cuda": 16}
#: Pixels per call on a CPU. More exceed the cache: four images of 320 x 320 together take 1.9 times as long as one by
#: one, of 160 x 160 1.1 times, and of 96 x 96 .85 times (benchmarks/speed_network.py).
_PIXELS = 40_000
#: Fraction of the available memory that one call may use.
_SHARE = 0.5
#: Without gradients, activations are freed early; fewer than this fraction of them exist at the same time.
_LIVE = 0.3


class PreparedNetwork:
    """A network that is ready for inference: ``prepared(x, levels)`` for any size and any batch.

    Parameters
    ----------
    network : nn.Module
        ``network(x, levels)`` for ``x (batch, channels, y, x)`` float32 and ``levels (batch,)``.
    multiple : int
        Height and width must be multiples of this; images are padded, and the result is cropped.
    memory_format : torch.memory_format
        Memory layout of weights and images.
    precision : "float32", "tf32" or "bfloat16"
        Arithmetic inside the network (`recon.priors.inference.arithmetic`); results are float32.
    compiled : bool or "cuda-graphs"
        Whether to compile the network with ``torch.compile``, which takes about a minute per image size and needs a C++
        compiler. With CUDA graphs, a GPU does not wait for Python (calls with gradients do not use them).
    max_batch : int, optional
        Largest number of images per call of the network; larger batches are split. By default 16 on a GPU and up to 4
        with 40,000 pixels together on a CPU, or fewer to fit into half of the available memory.
    told_positions : bool
        Whether the network takes the coordinates of the pixels as a third argument.

    Raises
    ------
    ConfigError
        If a setting is invalid.
    """

    def __init__(
        self,
        network: nn.Module,
        multiple: int,
        memory_format: torch.memory_format = torch.channels_last,
        precision: str = "float32",
        compiled: bool | str = False,
        max_batch: int | None = None,
        told_positions: bool = False,
    ) -> None:
        require_precision(precision)
        if max_batch is not None and max_batch < 1:
            raise ConfigError(f"expected max_batch >= 1, got {max_batch}")
        if compiled not in (False, True, GRAPHS):
            raise ConfigError(f"expected compiled to be False, True or {GRAPHS!r}, got {compiled!r}")
        self.network = network.eval().requires_grad_(False)
        self.network.to(memory_format=memory_format)  # type: ignore[call-overload]
        self.multiple, self.memory_format, self.precision = multiple, memory_format, precision
        self.max_batch, self.told_positions = max_batch, told_positions
        self.compiled = compiled
        self._call: Callable[..., Tensor] = self.network
        if compiled:
            with _quiet():
                self._call = torch.compile(self.network, mode="reduce-overhead" if compiled == GRAPHS else None)
        self._bytes_per_pixel: float | None = None

    def __call__(self, x: Tensor, levels: Tensor, exact: bool = False) -> Tensor:
        """Apply the network to ``x (batch, channels, y, x)`` at ``levels (batch,)``; float32.

        With ``exact``, this call is computed in float32 where others are in bfloat16.
        """
        count = self.chunk(x)
        precision = "float32" if exact and self.precision == "bfloat16" else self.precision
        pieces = zip(x.split(count), levels.split(count), strict=True)
        return torch.cat([self._piece(images, level, precision) for images, level in pieces])

    def chunk(self, x: Tensor) -> int:
        """Return the number of images per call of the network."""
        if self.max_batch is not None or len(x) == 1:
            return self.max_batch or 1
        pixels = x.shape[-1] * x.shape[-2]
        most = _MOST.get(x.device.type, 4)
        if x.device.type == "cpu":
            most = min(most, max(1, _PIXELS // pixels))
        available = available_memory(x.device)
        if available is None:
            return most
        if self._bytes_per_pixel is None:
            self._bytes_per_pixel = activation_bytes(self.network, x[:1], max(self.multiple, 16), self.told_positions)
        live = 1.0 if torch.is_grad_enabled() and x.requires_grad else _LIVE
        needed = live * self._bytes_per_pixel * pixels
        return max(1, min(most, int(_SHARE * available / max(needed, 1.0))))

    def _piece(self, x: Tensor, levels: Tensor, precision: str) -> Tensor:
        padded, margin = pad_to_multiple(x, self.multiple, self.memory_format)
        height, width = x.shape[-2:]
        extra: tuple[Tensor, ...] = ()
        if self.told_positions:
            extra = (positions((height, width), (padded.shape[-2], padded.shape[-1]), margin, x.device),)
        with arithmetic(precision, x.device):
            output = self._run(padded, levels, *extra)
        top, left = margin
        return output[..., top : top + height, left : left + width].float()

    def _run(self, *arguments: Tensor) -> Tensor:
        graphs = self.compiled == GRAPHS
        if not self.compiled or (graphs and torch.is_grad_enabled() and arguments[0].requires_grad):
            return self.network(*arguments)
        from torch._dynamo.exc import TorchDynamoException

        try:
            with _quiet():
                if not graphs:
                    return self._call(*arguments)
                torch.compiler.cudagraph_mark_step_begin()
                return self._call(*arguments).clone()  # the next call overwrites this output
        except TorchDynamoException as error:
            reason = str(error).strip().partition("\n")[0]
            raise ReconError(
                f"torch.compile failed ({reason}); it needs a C++ compiler; leave --compile out, or use compiled=False"
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Ignore deprecation warnings: torch's compiler uses features that torch deprecates."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def pad_to_multiple(
    x: Tensor, multiple: int, memory_format: torch.memory_format = torch.channels_last
) -> tuple[Tensor, tuple[int, int]]:
    """Pad ``(batch, channel, y, x)`` on all sides to multiples of ``multiple``; return it and the (top, left) margin.

    Mirrors the image if it is large enough, and repeats its border otherwise.
    """
    height, width = x.shape[-2:]
    down, across = -height % multiple, -width % multiple
    top, left = down // 2, across // 2
    if down or across:
        mode = "reflect" if down - top < height and across - left < width else "replicate"
        x = functional.pad(x, (left, across - left, top, down - top), mode=mode)
    return x.contiguous(memory_format=memory_format), (top, left)


@torch.no_grad()
def activation_bytes(network: nn.Module, like: Tensor, size: int, told_positions: bool) -> float:
    """Return the bytes per pixel of the outputs of all layers, measured on a small image of zeros.

    Layers that combine all pixels take more per pixel for large images. The layers of TorchScript programs cannot be
    inspected: 0 is returned.
    """
    if any(isinstance(module, torch.jit.ScriptModule) for module in network.modules()):
        return 0.0
    total = 0

    def count(module: nn.Module, given: object, output: object) -> None:
        nonlocal total
        if isinstance(output, Tensor) and not any(True for _ in module.children()):
            total += output.numel() * output.element_size()

    handles = [module.register_forward_hook(count) for module in network.modules()]
    try:
        image = torch.zeros(1, like.shape[1], size, size, device=like.device)
        extra = (positions((size, size), device=like.device),) if told_positions else ()
        network(image, torch.ones(1, device=like.device), *extra)
    finally:
        for handle in handles:
            handle.remove()
    return total / size**2


@contextmanager
def arithmetic(precision: str, device: torch.device) -> Iterator[None]:
    """Run networks in ``precision``, whatever torch's settings, and restore them afterwards.

    Parameters
    ----------
    precision : "float32", "tf32" or "bfloat16"
        ``float32`` is full precision on every device (by default, torch rounds convolutions to ten bits on GPUs);
        ``tf32`` allows this rounding, also in matrix products, and has no effect on a CPU; ``bfloat16`` is torch's
        autocast.
    device : torch.device
        Device of the images.
    """
    rounding = "tf32" if precision == "tf32" else "ieee"
    with products(rounding, device), torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        yield


@contextmanager
def products(kind: str, device: torch.device) -> Iterator[None]:
    """Let a GPU compute float32 products, including convolutions, as "ieee" or "tf32".

    Set by the older of torch's two sets of names, which sets the newer as well: code that reads either of them
    meanwhile, such as a compiler or a prior of another package, gets an answer. (Where only the newer ones are set,
    torch raises when the older are read.) Both are restored.
    """
    if device.type != "cuda":
        yield
        return
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    new: tuple[tuple[Any, str], ...] = tuple(
        (setting, setting.fp32_precision)
        for setting in (cudnn.conv, cudnn.rnn, matmul)  # type: ignore[attr-defined]
    )
    # None where the settings of the user contradict each other, and reading raises; then torch's defaults.
    convolutions, matrices = (_readable(lambda: cudnn.allow_tf32), _readable(lambda: matmul.allow_tf32))
    try:
        cudnn.allow_tf32 = matmul.allow_tf32 = kind == "tf32"
        yield
    finally:
        cudnn.allow_tf32 = True if convolutions is None else convolutions
        matmul.allow_tf32 = False if matrices is None else matrices
        for setting, value in new:
            setting.fp32_precision = value


def _readable(setting: Callable[[], bool]) -> bool | None:
    try:
        return setting()
    except RuntimeError:
        return None
