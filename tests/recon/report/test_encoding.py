"""Images as text: what a browser decodes is what was encoded, within the rounding that the page states."""

import base64
import zlib

import numpy as np
import pytest

from recon.report.encoding import encode, make_scale
from recon.report.thinning import Thinning, ladder


def decode(text, shape, scale):
    """What `planes.js` does, number by number."""
    content = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8).astype(int)
    count = shape[0] * shape[1]
    folded = content if scale.bits <= 8 else content[:count] + 256 * content[count:]
    codes = np.zeros(shape, int)
    for (y, x), number in zip(np.ndindex(*shape), folded, strict=True):
        upper = codes[y - 1, x] if y else codes[y, x - 1] if x else 0
        left = codes[y, x - 1] if x else upper
        error = -(number + 1) // 2 if number & 1 else number // 2
        codes[y, x] = ((left + upper) // 2 + error) % (256 if scale.bits <= 8 else 65536)
    numbers, values = zip(*scale.knots, strict=True)
    return np.where(codes == 0, np.nan, np.interp(codes, numbers, values))


@pytest.mark.parametrize("bits", [12, 8, 7])
def test_decoded_values_are_within_half_a_step(bits):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(9, 13)) * 300
    image[2:4, 5] = np.nan
    scale = make_scale(float(np.nanmin(image)), float(np.nanmax(image)), (-50.0, 60.0), bits)
    found = decode(encode(image, scale), image.shape, scale)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(image))
    inside = (image > -50) & (image < 60)
    assert np.abs(found - image)[inside].max() <= min(scale.steps()) / 2 * 1.001
    assert np.nanmax(np.abs(found - image)) <= max(scale.steps()) / 2 * 1.001


@pytest.mark.parametrize(
    ("low", "high", "dense"),
    [(0.0, 0.0, (0, 1)), (-1.0, 1.0, (-1, 1)), (0.0, 100.0, (0, 1)), (0.0, 100.0, (99, 200)), (0.0, 1.0, (5, 9))],
)
def test_scales_ascend_and_end_at_the_ends(low, high, dense):
    for bits in (12, 8, 7, 6):
        scale = make_scale(low, high, dense, bits)
        assert scale.knots[0] == (1, low) and scale.knots[-1][0] == 2**bits - 1
        assert scale.knots[-1][1] >= high
        assert min(scale.steps()) > 0
        assert scale.codes(np.array([low, high, np.nan]))[2] == 0


def test_few_bits_are_finer_inside_the_window():
    wide, fine = make_scale(-1000, 3000, (-1000, 3000), 8), make_scale(-1000, 3000, (-100, 200), 8)
    assert min(fine.steps()) < 2.1 < 15 < min(wide.steps())
    assert len(make_scale(-1000, 3000, (-100, 200), 12).knots) == 2


def test_the_ladder_goes_on_until_everything_fits():
    rungs = ladder()
    found = [next(rungs) for _ in range(15)]
    assert found[0] == Thinning(12, 1, 1, 1, 1, 32)
    assert found[-1].slice_step == 32
    assert found[0].text(8, "slice") == ""
    assert found[1].text(12, "slice") == "8 of 12 samples"
    assert found[-1].text(12, "slice") == ("every 4th pixel in both directions; 2 of 12 samples; every 32nd slice")
