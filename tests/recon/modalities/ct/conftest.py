"""CT files written with plain pydicom in the published layouts, and a helical scan of ellipsoids in closed form."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
STUDY, SERIES = "1.2.3.4.1", "1.2.3.4.2"


@pytest.fixture
def write_ct() -> Callable[..., Path]:
    """Write one CT image; keyword arguments set tags, None removes them, `meta` replaces parts of the file meta."""
    pydicom = pytest.importorskip("pydicom")

    def write(path: Path, stored: np.ndarray, z: float = 0.0, syntax: str | None = None, **tags: object) -> Path:
        dataset = pydicom.Dataset()
        signed = stored.dtype.kind == "i"
        values: dict[str, object] = {
            **{"SOPClassUID": CT_IMAGE, "SOPInstanceUID": f"{SERIES}.{abs(hash(path.name)) % 10**9}", "Modality": "CT"},
            **{"StudyInstanceUID": STUDY, "SeriesInstanceUID": SERIES, "SeriesNumber": 3, "FrameOfReferenceUID": "1.2"},
            **{"PatientName": "SECRET^PERSON", "PatientID": "SECRET-ID", "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"]},
            **{"Rows": stored.shape[0], "Columns": stored.shape[1], "SamplesPerPixel": 1},
            **{"PhotometricInterpretation": "MONOCHROME2", "PixelRepresentation": int(signed)},
            **{"BitsAllocated": 16, "BitsStored": 16 if signed else 12, "HighBit": 15 if signed else 11},
            **{"RescaleSlope": "1", "RescaleIntercept": "-1024", "PixelSpacing": ["0.7421875", "0.7421875"]},
            **{"ImagePositionPatient": ["-190.0", "-190.0", f"{z:.4f}"], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]},
            **{"DistanceSourceToDetector": "1085.6", "DistanceSourceToPatient": "595.0", "ConvolutionKernel": "B30f"},
            **{"SliceThickness": "3.0", "PixelData": stored.tobytes()},
            **tags,
        }
        for name, value in values.items():
            if value is not None:
                setattr(dataset, name, value)
        if "PixelData" in dataset:
            dataset["PixelData"].VR = "OW"
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.UID(syntax or "1.2.840.10008.1.2.1")
        dataset.file_meta.MediaStorageSOPClassUID = CT_IMAGE
        dataset.file_meta.MediaStorageSOPInstanceUID = values["SOPInstanceUID"]
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


# Centre, semi-axes (mm) and attenuation (1/mm) of the ellipsoids.
Ellipsoids = Sequence[tuple[tuple[float, float, float], tuple[float, float, float], float]]
BODY: Ellipsoids = (
    ((0, 0, 0), (140, 100, 200), 0.02),
    ((40, 20, 5), (30, 20, 60), 0.01),
    ((-50, -30, -10), (15, 25, 40), -0.012),
    ((10, -60, 3), (12, 12, 30), 0.02),
)


def line_integrals(start: np.ndarray, end: np.ndarray, ellipsoids: Ellipsoids) -> np.ndarray:
    """Closed form: mu times the chord of the line through two points `(..., 3)`."""
    direction = (end - start) / np.linalg.norm(end - start, axis=-1, keepdims=True)
    total = np.zeros(direction.shape[:-1])
    for centre, axes, mu in ellipsoids:
        o, v = (start - np.array(centre)) / np.array(axes), direction / np.array(axes)
        a, b, c = (v * v).sum(-1), (o * v).sum(-1), (o * o).sum(-1) - 1
        total += mu * 2 * np.sqrt(np.clip(b * b - a * c, 0, None)) / a
    return total


@dataclass(frozen=True)
class Helix:
    """A helical scan as in the DICOM-CT-PD manual: left-handed frame, angle 0 at 12 o'clock, row 1 at large z."""

    rows: int = 16
    columns: int = 96
    views_per_turn: int = 144
    turns: float = 1.6
    pitch: float = 0.6
    spot: str = "FFSNONE"
    curved: bool = True
    ellipsoids: Ellipsoids = BODY
    radius: float = 595.0
    distance: float = 1085.6
    row_spacing: float = 1.0947
    first_angle: float = 0.3
    clockwise: bool = False
    photons: float = 1e5
    extra: dict[int, object] = field(default_factory=dict)

    @property
    def column_spacing(self) -> float:
        return 1.2858 * 736 / self.columns

    @property
    def centre(self) -> tuple[float, float]:
        return 369.625 / 736 * self.columns, (self.rows + 1) / 2 + 0.25

    @property
    def count(self) -> int:
        return int(self.views_per_turn * self.turns)

    def place(self, k: int) -> tuple[float, float, float, float, float]:
        """phi0, z0 and the shifts (phi, z, rho) of the focal spot of view k."""
        feed = self.pitch * self.rows * self.row_spacing * self.radius / self.distance
        turn = (k - (self.count - 1) / 2) / self.views_per_turn
        fast, slow = (-1) ** k, (-1) ** (k // 2)
        shift_phi = fast * 0.5 * self.column_spacing / self.distance if "XY" in self.spot else 0.0
        axial = 0.0 if "Z" not in self.spot else (slow if "XY" in self.spot else fast)
        phi = self.first_angle + (-1 if self.clockwise else 1) * k / self.views_per_turn * 2 * np.pi
        return phi, feed * turn, shift_phi, 0.66 * axial, 4.0 * axial

    def project(self, k: int) -> np.ndarray:
        """The line integrals `(row, column)` of view k, from the positions of focal spot and elements in space."""
        phi, z, shift_phi, shift_z, shift_rho = self.place(k)
        rho, at = self.radius + shift_rho, phi + shift_phi
        source = np.array([-rho * np.sin(at), rho * np.cos(at), z + shift_z])
        towards, along = np.array([-np.sin(phi), np.cos(phi)]), np.array([np.cos(phi), np.sin(phi)])
        arc = (np.arange(1, self.columns + 1) - self.centre[0]) * self.column_spacing
        if self.curved:
            down, across = self.distance * np.cos(arc / self.distance), self.distance * np.sin(arc / self.distance)
        else:
            down, across = np.full_like(arc, self.distance), arc
        elements = np.empty((self.rows, self.columns, 3))
        elements[..., :2] = self.radius * towards - down[:, None] * towards + across[:, None] * along
        elements[..., 2] = (z + (self.centre[1] - np.arange(1, self.rows + 1)) * self.row_spacing)[:, None]
        return line_integrals(source, elements, self.ellipsoids)

    def fan(self, angles: np.ndarray, z: float) -> np.ndarray:
        """The fan sinogram `(angle, column)` of the slice at z: source on the circle, rays in the plane."""
        arc = (np.arange(1, self.columns + 1) - self.centre[0]) * self.column_spacing / self.distance
        gamma = arc if self.curved else np.arctan(arc)
        beta, gamma = np.broadcast_arrays(np.asarray(angles)[:, None], gamma)
        height = np.full(beta.shape, z)
        source = np.stack([-self.radius * np.sin(beta), self.radius * np.cos(beta), height], -1)
        direction = np.stack([np.sin(beta + gamma), -np.cos(beta + gamma), 0 * beta], -1)
        return line_integrals(source, source + direction, self.ellipsoids)

    def through(self, geometry, z: float) -> np.ndarray:
        """The sinogram `(angle, detector)` of the slice at z along the rays that a `ScanGeometry` documents."""
        t, gamma = np.broadcast_arrays(np.asarray(geometry.angles)[:, None], geometry.fan_angles)
        u = np.stack([np.cos(t), np.sin(t), 0 * t], -1)
        d = np.stack([-np.sin(t), np.cos(t), 0 * t], -1)
        source = -geometry.source_to_iso_mm * d + np.array([0, 0, z])
        along = d * np.cos(gamma)[..., None] + u * np.sin(gamma)[..., None]
        return line_integrals(source, source + along, self.ellipsoids)

    def write(self, folder: Path, encoding: str = "raw", transposed: bool = True, **tags: object) -> Path:
        """Write a folder of projections. Private tags as "raw" bytes (UN), "typed", "ascii" (UN) or "text".

        `tags`: what is to be set in addition, or (None) removed, by keyword or as `t70311001`.
        """
        pydicom = pytest.importorskip("pydicom")
        folder.mkdir(exist_ok=True)
        order = np.random.default_rng(0).permutation(self.count)  # names say nothing about the order
        for k in range(self.count):
            dataset = self._dataset(pydicom, k, encoding, transposed, dict(tags))
            dataset.save_as(folder / f"{order[k]:05d}.dcm", enforce_file_format=True)
        return folder

    def _dataset(self, pydicom, k: int, encoding: str, transposed: bool, tags: dict[str, object]):
        phi, z, shift_phi, shift_z, shift_rho = self.place(k)
        slope = 8.0 / 65535
        stored = np.rint(self.project(k) / slope + 100).astype(np.uint16)
        stored = stored.T if transposed else stored
        dataset = pydicom.Dataset()
        dataset.SOPClassUID, dataset.SOPInstanceUID = CT_IMAGE, f"{SERIES}.{k}"
        dataset.Modality, dataset.PatientName, dataset.PatientID = "CT", "SECRET^PERSON", "SECRET-ID"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID, dataset.InstanceNumber = STUDY, SERIES, k + 1
        dataset.Rows, dataset.Columns, dataset.SamplesPerPixel = *stored.shape, 1
        dataset.PhotometricInterpretation, dataset.PixelRepresentation = "MONOCHROME2", 0
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
        dataset.RescaleSlope, dataset.RescaleIntercept = f"{slope:.9g}", f"{-100 * slope:.9g}"
        private: dict[int, object] = {
            **{0x70291010: self.rows, 0x70291011: self.columns, 0x7029100B: "CYLINDRICAL" if self.curved else "FLAT"},
            **{0x70291002: (self.column_spacing,), 0x70291006: (self.row_spacing,)},
            **{0x70311001: ((phi + np.pi) % (2 * np.pi) - np.pi,), 0x70311002: (z,), 0x70311003: (self.radius,)},
            **{0x70311031: (self.distance,), 0x70311033: self.centre, 0x7033100E: self.spot},
            **{0x7033100B: (shift_phi,), 0x7033100C: (shift_z,), 0x7033100D: (shift_rho,)},
            **{0x70331013: self.views_per_turn, 0x70331065: (self.photons,) * self.columns},
            **{0x70371009: "HELICAL", 0x7037100A: "FANBEAM", 0x70391009: "YES", 0x70411001: (0.0192,)},
            **{int(name[1:], 16): value for name, value in tags.items() if name.startswith("t")},
        }
        for tag, value in private.items():
            if value is not None:
                dataset.add_new(tag, *_element(value, encoding))
        dataset.add_new(0x7FE00010, "OW", np.ascontiguousarray(stored).tobytes())
        for name, value in tags.items():
            if not name.startswith("t"):
                setattr(dataset, name, value) if value is not None else delattr(dataset, name)
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.file_meta.MediaStorageSOPClassUID = CT_IMAGE
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        return dataset


def _element(value: object, encoding: str) -> tuple[str, object]:
    """VR and value of a private element: a word, a uint16, or a tuple of floats."""
    if encoding == "typed":
        if isinstance(value, tuple):
            return "FL", [float(np.float32(one)) for one in value] if len(value) > 1 else float(np.float32(value[0]))
        return ("CS", value) if isinstance(value, str) else ("US", value)
    if encoding == "raw":
        if isinstance(value, tuple):
            return "UN", struct.pack(f"<{len(value)}f", *value)
        packed = value.encode() if isinstance(value, str) else struct.pack("<H", value)
        return "UN", packed + b" " * (len(packed) % 2)
    text = "\\".join(f"{one:.8g}" for one in value) if isinstance(value, tuple) else str(value)
    if encoding == "text":
        return "LT", text
    return "UN", text.encode() + b" " * (len(text) % 2)


@pytest.fixture
def helix() -> Callable[..., Helix]:
    """Make a helical scan; keyword arguments are the fields of `Helix`."""
    return lambda **fields: replace(Helix(), **fields)
