"""The ISMRMRD XML header that fastMRI files carry: matrix sizes, fields of view, encoding limits."""

from dataclasses import dataclass
from xml.etree import ElementTree
from xml.parsers import expat

from recon.errors import InputError

_NAMESPACE = "{http://www.ismrm.org/ISMRMRD}"


@dataclass(frozen=True)
class MrdHeader:
    """Geometry of the first encoding; x is the readout, y the phase encoding, lengths in mm.

    `center` and `maximum` are the limits of `kspace_encoding_step_1`, None where the header has none.
    """

    encoded_matrix: tuple[int, int, int]
    encoded_fov_mm: tuple[float, float, float]
    recon_matrix: tuple[int, int, int]
    recon_fov_mm: tuple[float, float, float]
    center: int | None
    maximum: int | None

    @property
    def readout_oversampling(self) -> float:
        """Ratio of encoded to reconstructed field of view along the readout."""
        return self.encoded_fov_mm[0] / self.recon_fov_mm[0]

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


def parse_header(xml: str, where: str) -> MrdHeader:
    """Parse the header safely: document types and entities (the means of XML bombs) are refused before they expand.

    Raises
    ------
    InputError
        If it is not well-formed, declares a document type, or a field is missing or not a positive number.
    """
    _refuse_doctype(xml, where)
    root = ElementTree.fromstring(xml.encode("utf-8"))
    encoding = root.find(f"{_NAMESPACE}encoding")
    if encoding is None:
        raise InputError(f"{where}: the header has no <encoding> (namespace {_NAMESPACE[1:-1]})")
    encoded_matrix, encoded_fov = _space(encoding, "encodedSpace", where)
    recon_matrix, recon_fov = _space(encoding, "reconSpace", where)
    limits = encoding.find(f"{_NAMESPACE}encodingLimits/{_NAMESPACE}kspace_encoding_step_1")
    center = maximum = None
    if limits is not None:
        center, maximum = (int(_number(limits, name, where)) for name in ("center", "maximum"))
    return MrdHeader(encoded_matrix, encoded_fov, recon_matrix, recon_fov, center, maximum)


def _refuse_doctype(xml: str, where: str) -> None:
    def refuse(*_: object) -> None:
        raise InputError(f"{where}: the header declares a document type or entities; refused")

    parser = expat.ParserCreate()
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
        if not all(0 < value < 1e6 for value in values[-1]):
            raise InputError(f"{where}: <{name}><{part}> must be positive, got {values[-1]}")
    (mx, my, mz), (fx, fy, fz) = values
    return (int(mx), int(my), int(mz)), (fx, fy, fz)


def _number(element: ElementTree.Element, name: str, where: str) -> float:
    written = element.findtext(_NAMESPACE + name)
    try:
        return float(written)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise InputError(f"{where}: <{name}> in the header must be a number, got {written!r}") from None
