"""The report: what it shows, that it stands alone, that it escapes what came from files, and what it refuses."""

import base64
import builtins
import dataclasses
import hashlib
import html
import io
import json
import os
import re
import warnings

import numpy as np
import pytest

from recon.errors import InputError, StorageError
from recon.metrics import coverage, foreground, psnr, ssim
from recon.posterior import Posterior
from recon.report import figures_of_merit, write_report
from recon.report.layout import build_rows
from recon.report.write import _subtitle

ERROR = "|Error| of the mean, \N{MULTIPLICATION SIGN}5"
HOSTILE = '<script>alert("x")</script> & $\\frac{1}$'


@pytest.fixture(autouse=True)
def coarse(monkeypatch):
    """Draw at a third of the resolution: quicker, and nothing here depends on it."""
    monkeypatch.setattr("recon.figure.DPI", 50)


@pytest.fixture
def make_posterior():
    def make(n=4, slices=None, reference=True, scale=1.0, **changes):
        rng = np.random.default_rng(0)
        shape = (24, 20) if slices is None else (slices, 24, 20)
        truth = 50 + 40 * np.outer(np.hanning(24), np.hanning(20)) * np.ones(shape)

        def noise():
            return rng.normal(size=shape) + 1j * rng.normal(size=shape)

        samples = np.stack([truth + 3 * noise() for _ in range(n)]).astype(np.complex64) * scale
        images = {
            "zero_filled": (truth + 9 * noise()).astype(np.complex64) * scale,
            "mask": np.arange(20)[None] % 4 == 0,
        }
        if reference:
            images["reference"] = (truth * scale).astype(np.float32)
        fields = {
            "geometry": {"voxel_size_mm": [5.0, 1.0, 1.0]},
            "provenance": {
                "source": {"name": "scan.h5"},
                "prior": {"name": "brain-mri"},
                "sampler": {"name": "DDS", "steps": 30},
                "seed": 3,
                "config": {"samples": 4, "mask": None},
                "measured": [{"scale": 2.5, "coils": 8}, {"scale": 3.5, "coils": 8}],
            },
            "diagnostics": {"residual": np.linspace(0.9, 1.1, n), "valid": np.ones(n, bool), "seconds": 1.5},
            "images": images,
        }
        return Posterior(samples, **{**fields, **changes})

    return make


def titles(posterior):
    return [panel.title for row in build_rows(posterior, {}) for panel in row.panels if panel.title]


def test_one_png_and_one_page_that_needs_nothing_else(make_posterior, tmp_path):
    png, html = write_report(make_posterior(), tmp_path / "new" / "scan")
    assert (png, html) == (tmp_path / "new" / "scan.png", tmp_path / "new" / "scan.html")
    assert sorted(p.name for p in png.parent.iterdir()) == ["scan.html", "scan.png"]
    page = html.read_text(encoding="utf-8")
    assert re.findall(r'src="([^"]{22})', page) == ["data:image/png;base64,"]
    assert base64.b64decode(re.search(r'base64,([^"]+)"', page)[1]) == png.read_bytes()
    assert not re.search(r"https?:|<link|@import|url\(|fetch\(|XMLHttp|import\(| style=", page)
    for fact in ("brain-mri", "DDS", "seed", "raw", "PSNR", "coverage of the 90%"):
        assert fact in page
    assert "<h2>Measured</h2>" in page
    assert "<th>scale</th><td>2.5 to 3.5</td>" in page
    assert "<th>coils</th><td>8</td>" in page
    assert "<th>mask</th>" not in page  # an option that was not used


def test_png_is_a_picture_with_content(make_posterior, tmp_path):
    from PIL import Image

    png, _ = write_report(make_posterior(), tmp_path / "scan.png")
    with Image.open(io.BytesIO(png.read_bytes())) as image:
        pixels = np.asarray(image.convert("RGB"), dtype=float)
    assert pixels.shape[1] == 13 * 50
    assert 100 < pixels.shape[0] < 650
    assert pixels.std() > 20


def test_panels_with_and_without_a_reference(make_posterior):
    assert titles(make_posterior()) == [
        "Reference",
        "Zero-filled",
        "Posterior mean",
        ERROR,
        "Posterior std (raw)",
        "Sampling mask",
    ]
    assert titles(make_posterior(reference=False)) == [
        "Zero-filled",
        "Posterior mean",
        "Posterior std (raw)",
        "Sampling mask",
    ]


def test_one_sample_shows_no_spread(make_posterior, tmp_path):
    posterior = make_posterior(n=1, reference=False)
    assert titles(posterior) == ["Zero-filled", "One sample", "Sampling mask"]
    assert len(build_rows(posterior, {})) == 1
    write_report(posterior, tmp_path / "one")


def test_panels_show_what_they_say(make_posterior):
    posterior = make_posterior()
    maps, strip = build_rows(posterior, figures_of_merit(posterior))
    panels = {panel.title: panel for panel in maps.panels}
    mean, truth = np.abs(posterior.mean), posterior.images["reference"]
    window = (0.0, pytest.approx(np.quantile(mean, 0.995)))
    for title in ("Reference", "Zero-filled", "Posterior mean"):
        assert panels[title].limits == window
    assert all(panel.limits == window for panel in strip.panels)
    np.testing.assert_allclose(panels["Posterior mean"].image, mean)
    np.testing.assert_allclose(panels["Posterior std (raw)"].image, posterior.std)
    error = panels[ERROR]
    np.testing.assert_allclose(error.image, np.abs(mean - truth), atol=1e-5)
    assert error.limits[1] == pytest.approx(window[1].expected / 5)
    assert panels["Posterior std (raw)"].cmap == "viridis"
    assert panels["Sampling mask"].caption == "25.0% of k-space, R = 4.0"
    assert f"{psnr(mean, truth):.1f} dB" in panels["Posterior mean"].caption


def test_figures_of_merit_are_the_metrics(make_posterior):
    posterior = make_posterior()
    truth = posterior.images["reference"]
    merit = figures_of_merit(posterior)
    assert merit["psnr"] == psnr(posterior.mean, truth)
    assert merit["plain_ssim"] == ssim(posterior.images["zero_filled"], truth)
    assert merit["coverage"] == coverage(*posterior.interval(0.9), truth, foreground(truth))
    assert "coverage" not in figures_of_merit(make_posterior(n=1))
    assert figures_of_merit(make_posterior(reference=False)) == {}


def test_a_reference_cropped_by_the_scanner_is_compared_with_the_centre(make_posterior):
    posterior = make_posterior()
    whole = figures_of_merit(posterior)["psnr"]
    small = posterior.images["reference"][2:-2, 3:-3]
    cropped = dataclasses.replace(posterior, images={**posterior.images, "reference": small})
    assert figures_of_merit(cropped)["psnr"] == psnr(posterior.mean[2:-2, 3:-3], small)
    assert figures_of_merit(cropped)["psnr"] != whole
    assert len(build_rows(cropped, {})[0].panels) == 6


def test_tiny_units_are_written_as_powers_of_ten(make_posterior):
    panels = {panel.title: panel for panel in build_rows(make_posterior(scale=1e-7), {})[0].panels}
    assert panels["Posterior std (raw)"].bar == "\N{MULTIPLICATION SIGN}10⁻⁶ a.u."
    assert 1 < panels["Posterior mean"].limits[1] < 1000


def test_invalid_samples_are_left_out_and_counted(make_posterior, tmp_path):
    posterior = make_posterior()
    samples = posterior.samples.copy()
    samples[1] = np.nan
    flagged = {**posterior.diagnostics, "valid": np.array([True, False, True, True])}
    posterior = dataclasses.replace(posterior, samples=samples, diagnostics=flagged)
    strip = build_rows(posterior, {})[1]
    assert len(strip.panels) == 3
    assert all(np.isfinite(panel.image).all() for panel in strip.panels)
    page = write_report(posterior, tmp_path / "scan")[1].read_text(encoding="utf-8")
    assert "3 of 4" in page
    assert '<span class="bad">no</span>' in page


def test_a_volume_shows_its_central_slice_and_an_overview(make_posterior, tmp_path):
    posterior = make_posterior(n=2, slices=11)
    rows = build_rows(posterior, {})
    np.testing.assert_allclose(rows[0].panels[2].image, np.abs(posterior.mean[5]))
    assert len(rows) == 4
    assert rows[0].label == "Slice 5, in the middle of the volume"
    assert rows[2].label == "Mean, 8 of 11 slices, one window"
    assert [panel.title for panel in rows[2].panels][::7] == ["slice 0", "slice 10"]
    some = dataclasses.replace(posterior, provenance={"slices": list(range(20, 31))})
    assert [panel.title for panel in build_rows(some, {})[2].panels][::7] == ["slice 20", "slice 30"]
    write_report(posterior, tmp_path / "volume")


@pytest.mark.parametrize(("steps", "calls", "said"), [(30, 30, "30 steps"), (None, 14, "14 network calls a sample")])
def test_the_cost_is_told_also_where_the_data_chose_the_steps(make_posterior, steps, calls, said):
    found = make_posterior(provenance={"sampler": {"name": "DDS", "steps": steps}, "network_calls": calls})
    assert said in _subtitle(found)


def test_text_from_files_is_escaped(make_posterior, tmp_path):
    posterior = make_posterior(
        provenance={"source": HOSTILE, HOSTILE: {HOSTILE: [HOSTILE]}},
        geometry={"units": HOSTILE},
        diagnostics={HOSTILE: 1.0, "note": HOSTILE},
    )
    page = write_report(posterior, tmp_path / "scan")[1].read_text(encoding="utf-8")
    assert re.findall("<script[^>]*>", page) == ['<script type="application/json" id="viewer-data">', "<script>"]
    assert page.count("</script>") == 2
    assert page.count("&lt;script&gt;") >= 6
    assert HOSTILE in content_of(page)["units"]


def content_of(page):
    """What the viewer of a page shows."""
    return json.loads(re.search(r'id="viewer-data">(.*?)</script>', page)[1])


def test_the_policy_allows_the_scripts_of_the_page_and_nothing_else(make_posterior, tmp_path):
    page = write_report(make_posterior(), tmp_path / "scan")[1].read_text(encoding="utf-8")
    policy = html.unescape(re.search('Content-Security-Policy" content="([^"]*)"', page)[1])
    for kind, tag in (("script", "<script>"), ("style", "<style>")):
        text = page.split(tag)[1].split(tag.replace("<", "</"))[0]
        assert f"{kind}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'; img-src data:; base-uri 'none'")
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_the_viewer_has_what_the_result_has(make_posterior, tmp_path):
    content = content_of(write_report(make_posterior(), tmp_path / "scan")[1].read_text("utf-8"))
    assert set(content["planes"]) == {"mean", "std", "above", "below", "reference", "plain"} | set(content["samples"])
    assert content["shape"] == [1, 24, 20] and len(content["samples"]) == 4
    assert content["interval"] == {"level": 0.9, "kind": "raw", "least": 0}
    one = content_of(write_report(make_posterior(n=1, reference=False), tmp_path / "one")[1].read_text("utf-8"))
    assert set(one["planes"]) == {"mean", "plain"} and one["interval"] is None and one["titles"]["mean"] == "One sample"


@pytest.mark.slow
def test_a_large_volume_is_thinned_and_says_so(make_posterior, tmp_path, monkeypatch):
    posterior = make_posterior(n=12, slices=12)
    monkeypatch.setattr("recon.report.page.LARGEST_PAGE", 420_000)
    path = write_report(posterior, tmp_path / "volume")[1]
    assert path.stat().st_size <= 420_000
    monkeypatch.setattr("recon.report.page.LARGEST_PAGE", path.stat().st_size - 30_000)
    smaller = write_report(posterior, tmp_path / "smaller")[1]
    assert smaller.stat().st_size <= path.stat().st_size - 30_000
    content = content_of(smaller.read_text("utf-8"))
    assert "To keep the page small it holds only" in content["note"]
    assert max(plane["step"] for plane in content["planes"].values()) > 1
    assert [len(plane["data"]) for plane in content["planes"].values()] == [12] * len(content["planes"])


@pytest.mark.slow
def test_a_large_image_is_thinned(make_posterior, tmp_path, monkeypatch):
    posterior = make_posterior(n=8)
    large = dataclasses.replace(posterior, samples=posterior.samples.repeat(6, axis=-1).repeat(6, axis=-2), images={})
    monkeypatch.setattr("recon.report.page.LARGEST_PAGE", 180_000)
    path = write_report(large, tmp_path / "large")[1]
    assert path.stat().st_size <= 180_000
    assert "holds only" in content_of(path.read_text("utf-8"))["note"]


def test_invalid_slices_are_blank_and_in_no_number(make_posterior, tmp_path):
    whole = make_posterior(slices=6)
    valid = np.array([True, True, False, False, True, True])
    samples, images = whole.samples.copy(), {name: image.copy() for name, image in whole.images.items()}
    samples[:, ~valid], images["zero_filled"][~valid], images["reference"][~valid] = np.nan, np.nan, np.nan
    flags = {**whole.diagnostics, "slice_valid": valid}
    spoilt = dataclasses.replace(whole, samples=samples, images=images, diagnostics=flags)
    good = dataclasses.replace(
        whole,
        samples=whole.samples[:, valid],
        images={name: image if name == "mask" else image[valid] for name, image in whole.images.items()},
    )
    assert figures_of_merit(spoilt) == figures_of_merit(good)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        page = write_report(spoilt, tmp_path / "spoilt")[1].read_text("utf-8")
    content = content_of(page)
    assert [slice["valid"] for slice in content["slices"]] == valid.tolist()
    assert all((text is None) != flag for text, flag in zip(content["planes"]["mean"]["data"], valid, strict=True))
    assert "Not reconstructed: slice 2, 3." in content["note"]
    rows = build_rows(spoilt, {})
    assert rows[0].label.startswith("Slice 4,")
    assert [bool(panel.blank) for panel in rows[2].panels] == (~valid).tolist()
    with pytest.raises(InputError, match="no slice"):
        write_report(dataclasses.replace(spoilt, diagnostics={"slice_valid": np.zeros(6, bool)}), tmp_path / "none")


def test_long_names_are_cut_inside_the_picture(make_posterior, tmp_path):
    write_report(make_posterior(provenance={"source": "a" * 400, "prior": "b" * 400}), tmp_path / "scan")


@pytest.mark.slow
def test_paths(make_posterior, tmp_path):
    posterior = make_posterior(n=1)
    assert write_report(posterior, tmp_path)[0].name == "report.png"
    assert write_report(posterior, tmp_path / "a.b")[1].name == "a.b.html"
    assert write_report(posterior, tmp_path / "scan.h5")[1].name == "scan.html"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be written"):
        write_report(posterior, tmp_path / "file" / "scan")


def test_a_failed_write_leaves_the_old_report(make_posterior, tmp_path, monkeypatch):
    png, html = write_report(make_posterior(), tmp_path / "scan")
    before = png.read_bytes(), html.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(StorageError, match=r"scan.png: cannot be written \(No space left on device\); free some space"):
        write_report(make_posterior(n=2), tmp_path / "scan")
    assert (png.read_bytes(), html.read_bytes()) == before
    assert len(list(tmp_path.iterdir())) == 2


def test_any_name_can_be_drawn(make_posterior, tmp_path):
    name = "scan\udcff\x1b]0;title\x07.h5"  # as Python reads a byte that is not UTF-8
    _, html = write_report(make_posterior(provenance={"source": {"name": name}}), tmp_path / os.fsdecode(b"scan\xff"))
    assert r"scan\xff\x1b]0;title\x07.h5" in html.read_text("utf-8")


def test_without_matplotlib_the_remedy_is_named(make_posterior, tmp_path, monkeypatch):
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(InputError, match=r"pip install diffrecon\[report\]"):
        write_report(make_posterior(), tmp_path / "scan")
    assert list(tmp_path.iterdir()) == []


def test_drawing_touches_no_global_matplotlib_state(make_posterior, tmp_path):
    import matplotlib
    import matplotlib.pyplot as pyplot

    backend, settings = matplotlib.get_backend(), dict(matplotlib.rcParams)
    write_report(make_posterior(), tmp_path / "scan")
    assert pyplot.get_fignums() == []
    assert matplotlib.get_backend() == backend
    assert dict(matplotlib.rcParams) == settings


def test_the_object_has_a_psnr_of_its_own(make_posterior):
    posterior = make_posterior()
    truth = posterior.images["reference"].copy()
    truth[:12] = 0
    half = dataclasses.replace(posterior, images={**posterior.images, "reference": truth})
    merit = figures_of_merit(half)
    assert merit["psnr_object"] == psnr(half.mean, truth, foreground(truth)) > merit["psnr"] + 10
    assert "psnr_limit" not in merit


def test_a_noisy_reference_is_pointed_out(make_posterior, tmp_path):
    posterior = make_posterior()
    rng = np.random.default_rng(1)
    truth = posterior.images["reference"]
    noisy = (truth + 4 * rng.standard_normal(truth.shape)).astype(np.float32)
    found = dataclasses.replace(posterior, images={**posterior.images, "reference": noisy})
    limit = figures_of_merit(found)["psnr_limit"]
    # The quietest of small parts: never below the true limit.
    assert 0 < limit - 20 * np.log10(noisy.max() / 4) < 8
    _, html = write_report(found, tmp_path / "report")
    assert f"{limit:.1f} dB" in html.read_text(encoding="utf-8")
