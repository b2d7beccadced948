"""The viewer in a browser: what it shows is what the result holds, and everything can be reached with the keyboard."""

import dataclasses
import re

import numpy as np
import pytest

from recon.posterior import Posterior
from recon.report import write_report
from recon.report.shown import Shown

pytestmark = pytest.mark.browser
SLICES, ROWS, COLUMNS = 5, 24, 20
INVALID = 3


@pytest.fixture(scope="module")
def posterior():
    rng = np.random.default_rng(0)
    shape = (SLICES, ROWS, COLUMNS)
    truth = 50 + 40 * rng.random(shape)
    samples = np.stack([truth + 3 * rng.normal(size=shape) + 3j * rng.normal(size=shape) for _ in range(4)])
    images = {"reference": truth.astype(np.float32), "zero_filled": (truth + 9).astype(np.complex64)}
    samples[:, INVALID] = np.nan
    valid = np.arange(SLICES) != INVALID
    return Posterior(
        samples.astype(np.complex64),
        {"voxel_size_mm": [5.0, 2.0, 1.0]},
        {
            "source": {"name": "<b>scan</b>.h5"},
            "modality": "mri",
            "slices": [10, 11, 12, 13, 14],
            "held_out": [{"chi2": 1.0 + k / 8} for k in range(SLICES)],
        },
        {"slice_valid": valid, "residual": np.ones((4, SLICES))},
        images,
    )


@pytest.fixture(scope="module")
def page(posterior, tmp_path_factory):
    return write_report(posterior, tmp_path_factory.mktemp("page") / "scan")[1]


@pytest.fixture
def viewer(browser, page):
    """The page, opened, with the image in view and in focus."""
    browser.open(page)
    browser.run("document.querySelector('#viewer').scrollIntoView()")
    browser.run("document.querySelector('#viewer canvas').focus({preventScroll: true})")
    yield browser
    assert browser.errors == []


def pixels(browser):
    """The red of each pixel of the image."""
    code = """(() => { const canvas = document.querySelector('#viewer .image canvas');
      const copy = new OffscreenCanvas(canvas.width, canvas.height);
      const context = copy.getContext('2d', { willReadFrequently: true }); // otherwise the browser warns
      context.drawImage(canvas, 0, 0);
      const { data } = context.getImageData(0, 0, copy.width, copy.height);
      return [canvas.height, canvas.width, Array.from(data)]; })()"""
    rows, columns, data = browser.run(code)
    return np.array(data).reshape(rows, columns, 4)[..., :3]


def readout(browser):
    """What is said of the pixel, by name."""
    names = browser.run("[...document.querySelectorAll('.readout dt')].map((e) => e.textContent)")
    values = browser.run("[...document.querySelectorAll('.readout dd')].map((e) => e.textContent)")
    return dict(zip(names, values, strict=True))


def number(text):
    return float(re.search(r"[-\u2212\d.]+", text)[0].replace("\u2212", "-"))


def centre(browser, y, x):
    """Where a pixel is on the screen."""
    box = browser.run(
        "(({left, top, width, height}) => [left, top, width, height])"
        "(document.querySelector('#viewer .image canvas').getBoundingClientRect())"
    )
    return box[0] + box[2] * (x + 0.5) / COLUMNS, box[1] + box[3] * (y + 0.5) / ROWS


def label(browser):
    return browser.run("document.querySelector('#viewer .image canvas').getAttribute('aria-label')")


def click(browser, text):
    browser.run(f"[...document.querySelectorAll('#viewer button')].find((b) => b.textContent === {text!r}).click()")
    browser.settle()


@pytest.mark.slow
def test_it_opens_without_errors_and_without_a_network(viewer, page):
    assert viewer.requests[0] == page.as_uri()
    assert all(address.startswith("data:image/png") for address in viewer.requests[1:])
    assert label(viewer) == "Mean, slice 12"
    assert viewer.run("document.querySelector('#viewer b') === null")


def test_the_picture_is_the_image_in_its_window(viewer, posterior):
    shown = Shown(posterior)
    images, (low, high) = shown.images(2), shown.display.window
    for key, name in (("1", "mean"), ("5", "reference"), ("7", "plain")):
        viewer.press(key)
        expected = 255 * np.clip((images[name] - low) / (high - low), 0, 1)
        assert np.abs(pixels(viewer)[..., 0] - expected).max() <= 1
    viewer.press("3")
    assert not np.array_equal(pixels(viewer)[..., 0], pixels(viewer)[..., 2])  # in colour
    viewer.press("6")
    error = np.abs(images["mean"] - images["reference"])
    brightness = pixels(viewer).sum(axis=-1)
    assert np.corrcoef(brightness.ravel(), error.ravel())[0, 1] > 0.9


def test_the_value_under_the_pointer_is_that_of_the_array(viewer, posterior):
    images = Shown(posterior).images(2)
    lower, upper = posterior.interval(0.9)
    for y, x in ((0, 0), (7, 13), (ROWS - 1, COLUMNS - 1)):
        viewer.mouse("mouseMoved", *centre(viewer, y, x))
        viewer.wait(f"document.querySelector('.readout dd')?.textContent === '{y}, {x}'")
        said = readout(viewer)
        exact = {"rel": 1e-3, "abs": 0.02}
        assert number(said["Mean"]) == pytest.approx(np.abs(posterior.mean[2, y, x]), **exact)
        assert number(said["Std (raw)"]) == pytest.approx(posterior.std[2, y, x], **exact)
        assert number(said["Reference"]) == pytest.approx(images["reference"][y, x], **exact)
        assert number(said["Sample 1"]) == pytest.approx(np.abs(posterior.samples[0, 2, y, x]), **exact)
        ends = said["90 % interval (raw)"].split(" to ")
        assert [number(end) for end in ends] == pytest.approx([lower[2, y, x], upper[2, y, x]], **exact)
        assert said["Mean"].endswith(" a.u.")
        assert said["held-out χ² of slice 12"] == "1.25"


def test_sliders_change_the_picture(viewer, posterior):
    shown = Shown(posterior)
    for slider, value, title in (("slice", 4, "Mean, slice 14"), ("sample", 2, "Sample 3, slice 14")):
        before = pixels(viewer)
        viewer.run(
            f"(() => {{ const s = document.getElementById('viewer-{slider}'); s.value = {value};"
            "s.dispatchEvent(new Event('input', { bubbles: true })); })()"
        )
        viewer.settle()
        assert label(viewer) == title
        assert not np.array_equal(pixels(viewer), before)
    low, high = shown.display.window
    expected = 255 * np.clip((shown.images(4)["sample 2"] - low) / (high - low), 0, 1)
    assert np.abs(pixels(viewer)[..., 0] - expected).max() <= 1


def test_the_keyboard_does_everything(viewer):
    viewer.press("ArrowUp")
    assert label(viewer) == "Mean, slice 11"
    viewer.press("ArrowRight")
    assert label(viewer) == "Sample 2, slice 11"
    viewer.press("ArrowLeft")
    viewer.press("ArrowLeft")
    assert label(viewer) == "Sample 4, slice 11"
    viewer.press("1")
    gray = pixels(viewer)
    viewer.press("o")
    assert viewer.run("document.getElementById('viewer-overlay').value") == "std"
    assert not np.array_equal(pixels(viewer), gray)
    viewer.press("o")
    np.testing.assert_array_equal(pixels(viewer), gray)
    viewer.press("ArrowDown", shift=True)
    viewer.wait("document.querySelector('.readout dd') !== null")
    assert readout(viewer)["pixel (row, column)"] == f"{ROWS // 2 + 1}, {COLUMNS // 2}"
    viewer.press("r")
    assert label(viewer) == "Mean, slice 12"


@pytest.mark.parametrize(
    ("slices", "samples", "words"),
    [
        (5, 4, ["↑ ↓ slice", "← → sample", "Space flip through the samples", "O overlay", "R reset", "1–7 image"]),
        (1, 4, ["← → sample", "Space flip through the samples", "O overlay", "R reset", "1–7 image"]),
        (1, 1, ["R reset", "1–4 image"]),
    ],
)
@pytest.mark.slow
def test_the_help_names_the_keys_that_do_something(browser, posterior, tmp_path, slices, samples, words):
    one = posterior if slices > 1 else dataclasses.replace(posterior.slice(0), diagnostics={})
    one = dataclasses.replace(one, samples=one.samples[:samples])
    browser.open(write_report(one, tmp_path / "one")[1])
    told = browser.run("document.querySelector('#viewer .help').textContent").partition("clicked: ")[2]
    assert told.split("  ")[:-1] == [*words, "Shift + arrows pixel"]
    assert browser.run("document.querySelectorAll('#viewer .views button').length") == int(words[-1][2])


def test_space_flips_through_the_samples(viewer):
    viewer.press(" ")
    seen = "(window.seen ??= new Set()).add(document.querySelector('#viewer .image canvas').getAttribute('aria-label'))"
    viewer.wait(f"{seen}.size >= 4")
    viewer.press(" ")
    still = label(viewer)
    assert viewer.run("new Promise((done) => setTimeout(() => done(true), 600))")
    assert label(viewer) == still
    assert re.match(r"Sample \d, slice 12", still)


def test_dragging_sets_the_window_and_a_double_click_resets_it(viewer):
    ends = "[...document.querySelectorAll('.window input')].map((e) => Number(e.value))"
    first = viewer.run(ends)
    x, y = centre(viewer, 10, 10)
    viewer.mouse("mousePressed", x, y, 1)
    viewer.mouse("mouseMoved", x + 80, y, 1)
    wide = viewer.run(ends)
    assert wide[1] - wide[0] > 1.1 * (first[1] - first[0])
    viewer.mouse("mouseMoved", x, y + 60, 1)
    moved = viewer.run(ends)
    assert sum(moved) > sum(first) and moved[1] - moved[0] == pytest.approx(first[1] - first[0], rel=1e-2)
    viewer.mouse("mouseReleased", x, y + 60, 1)
    for clicks in (1, 2):
        viewer.mouse("mousePressed", x, y, clicks)
        viewer.mouse("mouseReleased", x, y, clicks)
    assert viewer.run(ends) == first


def test_a_slice_that_is_invalid_is_a_labelled_blank(viewer):
    viewer.press("ArrowDown")
    assert label(viewer) == "slice 13 was not reconstructed"
    blank = (
        "(() => { const e = document.querySelector('.blank'); return [getComputedStyle(e).display, e.textContent]; })()"
    )
    assert viewer.run(blank) == ["grid", "slice 13 was not reconstructed"]
    viewer.mouse("mouseMoved", *centre(viewer, 5, 5))
    assert "not reconstructed" in viewer.run("document.querySelector('.readout').textContent")
    viewer.press("ArrowDown")
    assert viewer.run(blank)[0] == "none" and label(viewer) == "Mean, slice 14"


def test_an_address_opens_at_a_slice(browser, page):
    browser.open(page, "#slice=14")
    assert label(browser) == "Mean, slice 14"


def test_without_scripts_the_picture_and_the_tables_are_there(browser, page):
    browser.open(page, scripts=False)
    browser.wait("document.querySelector('figure img').complete")
    assert browser.run("document.querySelector('figure img').naturalWidth") > 500
    assert browser.run("getComputedStyle(document.getElementById('viewer')).display") == "none"
    assert browser.run("document.querySelectorAll('section table').length") >= 3
    browser.send("Emulation.setScriptExecutionDisabled", value=False)


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_screen(browser, page, width):
    browser.open(page, width=width, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= width
    image = browser.run("document.querySelector('#viewer .image').getBoundingClientRect().toJSON()")
    assert 150 < image["width"] <= width and image["height"] <= 0.77 * 800
    assert image["height"] / image["width"] == pytest.approx(2 * ROWS / COLUMNS, rel=0.02)
    assert browser.run(
        "[...document.querySelectorAll('#viewer input, #viewer select')].every((e) => "
        "e.labels.length || e.getAttribute('aria-label'))"
    )
    assert browser.errors == []


@pytest.mark.slow
def test_thinned_images_are_read_at_the_pixels_that_were_kept(browser, posterior, tmp_path, monkeypatch):
    monkeypatch.setattr("recon.report.thinning._LADDER", ((8, 1, 2, 2, 4, 2),))
    small = write_report(dataclasses.replace(posterior), tmp_path / "thin")[1]
    browser.open(small)
    browser.run("document.querySelector('#viewer').scrollIntoView()")
    browser.mouse("mouseMoved", *centre(browser, 10, 15))
    browser.wait("document.querySelector('.readout dd')?.textContent === '8, 12'")
    said = readout(browser)
    assert number(said["Mean"]) == pytest.approx(np.abs(posterior.mean[2, 8, 12]), abs=0.5)
    assert number(said["Std (raw)"]) == pytest.approx(posterior.std[2, 8, 12], abs=0.2)
    assert number(said["Sample 1"]) == pytest.approx(np.abs(posterior.samples[0, 2, 8, 12]), abs=0.5)
    assert browser.errors == []


def test_the_index_of_a_study_opens_without_errors(browser, posterior, tmp_path):
    from recon.report.study_index import write_study_index

    whole = dataclasses.replace(posterior, samples=posterior.samples[:, :3], diagnostics={}, provenance={})
    dataclasses.replace(whole, images={}).save(tmp_path / "scan.h5")
    browser.open(write_study_index(tmp_path))
    assert browser.errors == []
    browser.wait("document.querySelector('.study img').naturalWidth > 10")  # it is decoded after the page is there
    assert browser.run("getComputedStyle(document.querySelector('.level')).backgroundColor") == "rgb(163, 172, 185)"
