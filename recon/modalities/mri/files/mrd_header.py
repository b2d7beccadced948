"""The XML header of ISMRMRD and fastMRI files: matrix sizes, fields of view, encoding limits, trajectory."""

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.parsers import expat

from recon.errors import InputError

_NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"
#: Shorter fields of view are damage; ratios of lengths from here to 1e6 mm are finite and not zero.
_LEAST_MM = 1e-3


@dataclass(frozen=True)
class MrdHeader:
    """Geometry of one encoding; x is the readout, y the phase encoding, z the second one, lengths in mm.

    `center` and `maximum` are the limits of `kspace_encoding_step_1`, `center_2` and `maximum_2` those of
    `kspace_encoding_step_2`, None where the header has none. `calibration` is the mode of the parallel imaging lines
    ("embedded", "separate", ...), `noise_bandwidth` the relative receiver noise bandwidth.
    """

    encoded_matrix: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    center: int | None
    maximum: int | None
    center_2: int | None = None
    maximum_2: int | None = None
    trajectory: str = "cartesian"
    calibration: str | None = None
    noise_bandwidth: float = 1.0

    @property
    def readout_oversampling(self) -> float:
        """Ratio of encoded to reconstructed field of view along the readout."""
        return self.encoded_fov_mm[0] / self.recon_fov_mm[0]

    def kept(self, axis: int, length: int) -> int:
        """Return how many of the pixels along an axis (x, y, z) lie in the reconstructed field of view."""
        return min(max(round(length * self.recon_fov_mm[axis] / self.encoded_fov_mm[axis]), 1), length)

    @property
    def voxel_size_mm(self) -> tuple[float, float, float]:
        """Size of an encoded pixel `(z, y = readout, x = phase)`; z is the reconstructed slice thickness."""
        dy, dx = (self.encoded_fov_mm[k] / self.encoded_matrix[k] for k in (0, 1))
        return self.recon_fov_mm[2] / self.recon_matrix[2], dy, dx

    def acquired(self) -> tuple[int, int] | None:
        """Return the encoded columns `(first, last + 1)`: enc_y // 2 - center, and that + maximum + 1."""
        if self.center is None or self.maximum is None:
            return None
        first = self.encoded_matrix[1] // 2 - self.center
        return first, first + self.maximum + 1


def parse_header(xml: str, where: str, encoding_number: int = 0) -> MrdHeader:
    """Parse the header safely: document types and entities (the means of XML bombs) are refused before they expand.

    Raises
    ------
    InputError
        If it is not well-formed, declares a document type, has no such encoding, or a field is missing or not a
        positive number.
    """
    root = _root(xml, where)
    encodings = root.findall(f"{_NAMESPACE}encoding")
    if not encodings:
        raise InputError(f"{where}: the header has no <encoding> (namespace {_NAMESPACE[1:-1]})")
    if encoding_number >= len(encodings):
        raise InputError(f"{where}: the data refer to encoding {encoding_number}, but the header has {len(encodings)}")
    encoding = encodings[encoding_number]
    return MrdHeader(
        *_space(encoding, "encodedSpace", where),
        *_space(encoding, "reconSpace", where),
        *_limits(encoding, 1, where),
        *_limits(encoding, 2, where),
        trajectory=_text(encoding, "trajectory") or "cartesian",
        calibration=_text(encoding, f"parallelImaging/{_NAMESPACE}calibrationMode"),
        noise_bandwidth=_noise_bandwidth(root, where),
    )


def parse_noise_bandwidth(xml: str, where: str) -> float:
    """Return the relative receiver noise bandwidth of a header, which need not describe an encoding.

    Raises
    ------
    InputError
        If the header is not well-formed, declares a document type, or the value is impossible.
    """
    return _noise_bandwidth(_root(xml, where), where)


def _root(xml: str, where: str) -> ElementTree.Element:
    _refuse_doctype(xml, where)
    try:
        # The encoding that the header declares is not looked for.
        return ElementTree.fromstring(xml.encode("utf-8"), ElementTree.XMLParser(encoding="utf-8"))
    except ElementTree.ParseError as error:  # of namespaces, which the parser before does not look at
        raise InputError(f"{where}: the header is not well-formed XML ({error})") from error


def _text(encoding: ElementTree.Element, name: str) -> str | None:
    written = encoding.findtext(_NAMESPACE + name)
    return written.strip().lower() if written and written.strip() else None


def _noise_bandwidth(root: ElementTree.Element, where: str) -> float:
    element = root.find(f"{_NAMESPACE}acquisitionSystemInformation/{_NAMESPACE}relativeReceiverNoiseBandwidth")
    if element is None:
        return 1.0
    try:
        value = float(element.text or "")
    except ValueError:
        value = float("nan")
    if not 0.1 <= value <= 1:
        raise InputError(f"{where}: <relativeReceiverNoiseBandwidth> must be from 0.1 to 1, got {element.text!r}")
    return value


def _limits(encoding: ElementTree.Element, step: int, where: str) -> tuple[int | None, int | None]:
    """Return center and maximum of an encoding step, None where the header has none."""
    limits = encoding.find(f"{_NAMESPACE}encodingLimits/{_NAMESPACE}kspace_encoding_step_{step}")
    if limits is None:
        return None, None
    center, maximum = (_number(limits, name, where) for name in ("center", "maximum"))
    if not (0 <= center < 1e6 and 0 <= maximum < 1e6):
        raise InputError(
            f"{where}: the limits of kspace_encoding_step_{step} must be from 0 on, got center {center:g}, maximum "
            f"{maximum:g}"
        )
    return int(center), int(maximum)


def _refuse_doctype(xml: str, where: str) -> None:
    def refuse(*_: object) -> None:
        raise InputError(f"{where}: the header declares a document type or entities; refused")

    parser = expat.ParserCreate("utf-8")
    parser.StartDoctypeDeclHandler = refuse
    parser.EntityDeclHandler = refuse
    try:
        parser.Parse(xml.encode("utf-8"), True)
    except expat.ExpatError as error:
        raise InputError(f"{where}: the header is not well-formed XML ({error})") from error


def _space(
    encoding: ElementTree.Element, name: str, where: str
) -> tuple[tuple[int, int, int], tuple[float, float, float]]:
    space = encoding.find(_NAMESPACE + name)
    if space is None:
        raise InputError(f"{where}: the header has no <{name}>")
    values = []
    for part in ("matrixSize", "fieldOfView_mm"):
        element = space.find(_NAMESPACE + part)
        if element is None:
            raise InputError(f"{where}: <{name}> has no <{part}>")
        values.append([_number(element, axis, where) for axis in "xyz"])
        if not all(_LEAST_MM <= value < 1e6 for value in values[-1]):
            raise InputError(f"{where}: <{name}><{part}> must be positive, got {values[-1]}")
        if part == "matrixSize" and not all(value.is_integer() for value in values[-1]):
            raise InputError(f"{where}: <{name}><{part}> must be whole numbers, got {values[-1]}")
    (mx, my, mz), (fx, fy, fz) = values
    return (int(mx), int(my), int(mz)), (fx, fy, fz)


def _number(element: ElementTree.Element, name: str, where: str) -> float:
    written = element.findtext(_NAMESPACE + name)
    try:
        return float(written)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{where}: <{name}> in the header must be a number, got {written!r}") from None
