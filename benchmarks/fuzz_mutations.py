"""Mutations of seed files for fuzz.py: bytes, and values, types, shapes and members with valid checksums."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

#: Returns the content of a mutated file; the path is a copy of the seed that may be changed on the way.
Mutation = Callable[[np.random.Generator, bytes, Path], bytes]

_INTEGERS = (0, 1, -1, 2, 7, 127, 128, 255, 32767, 32768, 65535, 2**24, 2**31 - 1, 2**31, 2**32 - 1, 2**40, 2**63 - 1)
_FLOATS = (0.0, -1.0, 1e-30, 1e30, np.nan, np.inf, -np.inf, 0.5, 3e5)
_WORDS = (
    *("-1", "0", "1", "1e308", "-1e308", "nan", "inf", "0.5", "99999999999", "true", "null", "[]", "{}", '""', '"x"'),
    *("[1, 2]", '{"a": 1}', "[" * 5000, "{" * 5000, "\x00", "\x1b]0;t\x07", "é", "<a>", "&lt;", "''", "2000000000"),
)
_TOKEN = re.compile(rb"[-+]?\d[\d.eE+-]*|\"[^\"\n]*\"|\w+|[^\s\w]")


def of_bytes(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change, cut, repeat or overwrite bytes; half of the places are in the first kilobyte, where headers are."""
    data = bytearray(content)
    near = min(len(data), 1024) if rng.random() < 0.5 else len(data)
    kind = rng.integers(7)
    place = int(rng.integers(near))
    if kind < 2:
        for where in rng.integers(near, size=rng.integers(1, 20)):
            data[where] = rng.integers(256)
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        size = int(rng.integers(1, 200))
        data[place : place + size] = bytes([rng.choice([0, 255])]) * min(size, len(data) - place)
    elif kind == 4:
        size = int(rng.integers(1, 200))
        data[place:place] = data[place : place + size] if rng.random() < 0.5 else rng.bytes(size)
    else:
        _overwrite(rng, data, place)
    return bytes(data)


def _overwrite(rng: np.random.Generator, data: bytearray, place: int) -> None:
    """Put a number that headers stumble over at an aligned place."""
    width, order = int(rng.choice([1, 2, 4, 8])), str(rng.choice(["<", ">"]))
    place -= place % width
    if width >= 4 and rng.random() < 0.3:
        new = struct.pack(order + ("f" if width == 4 else "d"), rng.choice(_FLOATS))
    else:
        new = (int(_INTEGERS[rng.integers(len(_INTEGERS))]) % 2 ** (8 * width)).to_bytes(
            width, "little" if order == "<" else "big"
        )
    data[place : place + width] = new[: len(data) - place]


def of_text(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Replace, remove or repeat words, numbers and lines."""
    if rng.random() < 0.2:
        return of_bytes(rng, content, path)
    for _ in range(rng.integers(1, 4)):
        if rng.random() < 0.25:
            lines = content.split(b"\n")
            k = int(rng.integers(len(lines)))
            lines[k : k + 1] = [] if rng.random() < 0.5 else [lines[k], lines[int(rng.integers(len(lines)))]]
            content = b"\n".join(lines)
            continue
        tokens = list(_TOKEN.finditer(content))
        if tokens:
            start, stop = tokens[rng.integers(len(tokens))].span()
            content = content[:start] + _WORDS[rng.integers(len(_WORDS))].encode() + content[stop:]
    return content


def of_hdf5(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change values, types, shapes, links and attributes with the library, or bytes."""
    if rng.random() < 0.5:
        return of_bytes(rng, content, path)
    path.write_bytes(content)
    try:
        with h5py.File(path, "r+") as file:
            names: list[str] = []
            file.visit(names.append)
            name = names[rng.integers(len(names))]
            if rng.random() < 0.15:
                item = file[name] if rng.random() < 0.5 else file
                key = list(item.attrs)[rng.integers(len(item.attrs))] if len(item.attrs) else "units"
                item.attrs[key] = _other(rng, np.asarray(item.attrs.get(key, 1.0)))
            else:
                _replace(rng, file, name)
    except (TypeError, ValueError, KeyError, OSError, RuntimeError):
        return of_bytes(rng, content, path)
    return path.read_bytes()


def _replace(rng: np.random.Generator, file: h5py.File, name: str) -> None:
    values = file[name][()] if isinstance(file[name], h5py.Dataset) else None
    kind = rng.integers(6)
    del file[name]
    if kind == 1:
        file.create_group(name)
    elif kind == 2:
        file[name] = rng.choice([h5py.SoftLink(f"/{name}"), h5py.ExternalLink("other.h5", "/data")])
    elif kind > 2 and values is not None:
        packed = rng.random() < 0.3 and np.ndim(values)
        file.create_dataset(name, data=_other(rng, np.asarray(values)), **({"compression": "gzip"} if packed else {}))


def _other(rng: np.random.Generator, values: np.ndarray) -> object:
    """Return other values, another type or another shape."""
    kind = rng.integers(6)
    if kind == 0 or values.dtype.kind not in "biufc":
        return [1.0, "text", np.zeros((0, 3)), np.array(["a", "b"], object), b"\xff\x00\xfe"][rng.integers(5)]
    if kind == 1:
        return values.astype(rng.choice(["f2", "f8", "c16", "i1", "u8", ">f4", "?"]))
    if kind == 2:
        return values[None] if rng.random() < 0.5 or not values.ndim else values[0]
    if kind == 3:
        return values.T if values.ndim > 1 else values.reshape(-1)[:-1]
    changed = np.array(values)
    changed.reshape(-1)[rng.integers(max(changed.size, 1)) :] = rng.choice(_FLOATS) if changed.dtype.kind in "fc" else 0
    return changed


def of_zip(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change a member of an archive and its checksum with it."""
    if rng.random() < 0.4:
        return of_bytes(rng, content, path)
    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as old, zipfile.ZipFile(target, "w") as new:
        infos = old.infolist()
        chosen = rng.integers(len(infos))
        for k, info in enumerate(infos):
            member = old.read(info)
            if k == chosen:
                if rng.random() < 0.1:
                    continue
                member = of_bytes(rng, member, path) if member else b"x"
            new.writestr(info.filename, member, info.compress_type)
    return target.getvalue()


def of_gzip(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change what was compressed, and compress it again."""
    if rng.random() < 0.4:
        return of_bytes(rng, content, path)
    return gzip.compress(of_bytes(rng, gzip.decompress(content), path), 1)


def of_packed_matlab(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change an element of a MATLAB file before it is compressed."""
    if rng.random() < 0.3:
        return of_bytes(rng, content, path)
    parts, position = [], 128
    while position < len(content):
        kind, size = struct.unpack_from("<II", content, position)
        element = content[position + 8 : position + 8 + size]
        parts.append(zlib.decompress(element) if kind == 15 else element)
        position += 8 + size
    chosen = rng.integers(len(parts))
    parts[chosen] = of_bytes(rng, parts[chosen], path)
    packed = [zlib.compress(part, 1) for part in parts]
    return content[:128] + b"".join(struct.pack("<II", 15, len(one)) + one for one in packed)


def of_dicom(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change bytes; in every third file, bytes of a header and pixels that are deflated afterwards."""
    if rng.random() < 0.67:
        return of_bytes(rng, content, path)
    start = 144 + int.from_bytes(content[140:144], "little")
    pack = zlib.compressobj(1, zlib.DEFLATED, -15)
    body = pack.compress(of_bytes(rng, content[start:], path)) + pack.flush()
    plain, deflated = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.1.99"
    meta = content[:start].replace(b"UI\x14\0" + plain, b"UI\x16\0" + deflated)
    return meta[:140] + (len(meta) - 144).to_bytes(4, "little") + meta[144:] + body


def of_xml(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change the ISMRMRD header in a file."""
    path.write_bytes(content)
    with h5py.File(path, "r+") as file:
        xml = file["ismrmrd_header"][()]
        del file["ismrmrd_header"]
        changed = of_text(rng, xml, path)
        file["ismrmrd_header"] = np.frombuffer(changed.replace(b"\0", b" ") or b" ", f"S{max(len(changed), 1)}")[0]
    return path.read_bytes()


def of_weights(rng: np.random.Generator, content: bytes, path: Path) -> bytes:
    """Change the header of safetensors, or bytes, and write the new checksum into the card."""
    if rng.random() < 0.5:
        (size,) = struct.unpack_from("<Q", content)
        head = of_text(rng, content[8 : 8 + size], path)
        changed = struct.pack("<Q", len(head)) + head + content[8 + size :]
    else:
        changed = of_bytes(rng, content, path)
    card = path.with_suffix(".json")
    known = json.loads(card.read_text())
    card.write_text(json.dumps({**known, "sha256": hashlib.sha256(changed).hexdigest()}))
    return changed
