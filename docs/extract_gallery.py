"""Take the pictures of the gallery out of the executed notebooks: `python docs/extract_gallery.py`.

Run it after `notebooks/build.py`, look at each picture, and correct its caption in `docs/gallery.md`.
"""

import base64
import io
import json
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
#: Name of the picture: notebook, and the number of the cell that draws it.
PICTURES = {
    "mri": ("01_mri", 8),
    "mri_samples": ("01_mri", 9),
    "measured_directions": ("02_uncertainty", 8),
    "calibrated": ("02_uncertainty", 29),
    "ct": ("03_ct", 6),
    "ct_samples": ("03_ct", 8),
    "wrong_prior": ("04_priors", 11),
    "ultrasound": ("05_ultrasound", 5),
    "ultrasound_samples": ("05_ultrasound", 9),
}
COLOURS = 256  # of a palette that covers the colour bars as well as the grey images
LARGEST = 150_000


def picture(notebook: str, cell: int) -> Image.Image:
    """Return the picture that a cell of an executed notebook shows."""
    cells = json.loads((ROOT / "notebooks" / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    for output in cells[cell].get("outputs", []):
        if "image/png" in output.get("data", {}):
            return Image.open(io.BytesIO(base64.b64decode("".join(output["data"]["image/png"]))))
    raise SystemExit(f"{notebook}: cell {cell} shows no picture")


def main() -> None:
    """Write `docs/images/gallery_NAME.png` for each picture."""
    for name, (notebook, cell) in PICTURES.items():
        path = ROOT / "docs" / "images" / f"gallery_{name}.png"
        shown = picture(notebook, cell).convert("RGB")
        image = shown.quantize(COLOURS, Image.Quantize.MAXCOVERAGE, kmeans=3, dither=Image.Dither.NONE)
        image.save(path, optimize=True)
        size = path.stat().st_size
        if size > LARGEST:
            raise SystemExit(f"{path.name}: {size} bytes, at most {LARGEST} are wanted")
        print(f"{path.name}: {image.width} x {image.height}, {size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
