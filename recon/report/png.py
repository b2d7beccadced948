"""Small gray pictures as PNG, without an imaging library."""

from __future__ import annotations

import base64
import struct
import zlib

import numpy as np
from numpy.typing import NDArray


def gray_png(image: NDArray, window: tuple[float, float]) -> bytes:
    """Return an image ``(y, x)`` as a PNG of 8 bits, black and white at the ends of the window."""
    low, high = window
    level = (np.nan_to_num(image, nan=low) - low) / ((high - low) or 1.0)
    pixels = np.rint(255 * np.clip(level, 0, 1)).astype(np.uint8)
    rows, columns = pixels.shape
    filtered = np.insert(pixels, 0, 0, axis=1)  # each row begins with its filter: none
    header = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    parts = ((b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in parts)


def data_uri(png: bytes) -> str:
    """Return a PNG as an address that holds it."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def thumbnail(image: NDArray, longest: int) -> NDArray:
    """Average blocks of pixels, so that no side is longer than ``longest``."""
    block = max(1, -(-max(image.shape) // longest))
    rows, columns = (max(length // block, 1) for length in image.shape)
    height, width = min(block, image.shape[0]), min(block, image.shape[1])
    cropped = image[: rows * height, : columns * width]
    return np.asarray(cropped.reshape(rows, height, columns, width).mean(axis=(1, 3)))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
