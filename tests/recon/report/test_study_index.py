"""The index of a study: worst first, escaped, small, and honest about files that cannot be read."""

import base64
import io
import os
import re

import numpy as np
import pytest

from recon.cli import main
from recon.metrics import psnr
from recon.posterior import Posterior
from recon.report import png
from recon.report.study_index import write_study_index
from recon.report.study_row import read_row

HOSTILE = '<script>alert("x")</script>'


@pytest.fixture
def save(tmp_path):
    def save(name, level="ok", reasons=(), chi2=(1.0,), slices=None, **diagnostics):
        rng = np.random.default_rng(len(name))
        shape = (24, 20) if slices is None else (slices, 24, 20)
        samples = (50 + rng.normal(size=(3, *shape)) + 1j * rng.normal(size=(3, *shape))).astype(np.complex64)
        provenance = {
            "modality": "mri",
            "verdict": {"level": level, "reasons": list(reasons)},
            "held_out": [{"chi2": value} for value in chi2],
        }
        reference = np.abs(samples[0]) + 1
        Posterior(samples, {}, provenance, {"seconds": 12.4, **diagnostics}, {"reference": reference}).save(
            tmp_path / f"{name}.h5"
        )
        return tmp_path / f"{name}.h5"

    return save


def names(page):
    return re.findall(r'<th scope="row">(?:<a href="[^"]*">)?([^<]*)', page)


def test_rows_are_sorted_and_say_what_the_results_say(save, tmp_path, capsys):
    save("fine", chi2=[1.1])
    save("poor", "doubtful", [HOSTILE, "b" * 500])
    save("broken", "failed", ["the data are not explained"], chi2=[4.0])
    save("worse", "failed", ["too"], chi2=[7.25])
    (tmp_path / "worse.html").write_text("the page")
    (tmp_path / "raw.h5").write_bytes(b"not a result")
    (tmp_path / "cut.h5").write_bytes((tmp_path / "fine.h5").read_bytes()[:3000])
    assert main(["report", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}\n"
    page = (tmp_path / "index.html").read_text("utf-8")
    assert names(page) == ["worse", "broken", "cut", "poor", "fine"]
    assert '<a href="worse.html">worse</a>' in page and "broken.html" not in page
    assert "<script" not in page and "&lt;script&gt;" in page and "b" * 201 not in page
    assert ">7.25</td>" in page and ">12</td>" in page
    assert [int(n) for n in re.findall(r'"card"><b>(\d+)', page)] == [5, 2, 1, 1, 1]
    assert "default-src 'none'" in page.replace("&#x27;", "'")
    with_reference = Posterior.load(tmp_path / "fine.h5")
    assert f">{psnr(with_reference.mean, with_reference.images['reference']):.1f}</td>" in page


def test_the_worst_slices_of_a_volume_are_first(save, tmp_path):
    path = save("volume", chi2=[1.0, 3.0, 1.5, 2.0, 1.2], slices=5, slice_valid=np.array([1, 1, 1, 0, 1], bool))
    row = read_row(path, 16)
    assert [number for number, _ in row.worst] == [3, 1, 2, 4]
    assert row.worst[0][1] == "not reconstructed" and row.worst[1][1].endswith("3.00")
    found = Posterior.load(path)
    kept = [0, 1, 2, 4]
    assert row.psnr == pytest.approx(psnr(found.mean[kept], found.images["reference"][kept]))
    (tmp_path / "volume.html").write_text("the page")
    assert 'href="volume.html#slice=3"' in write_study_index(tmp_path).read_text("utf-8")


def test_an_index_replaces_an_index_and_nothing_else(save, tmp_path, capsys):
    save("fine")
    other = tmp_path / "index.html"
    other.write_text("my own page")
    assert main(["report", str(tmp_path)]) == 2
    assert other.read_text() == "my own page"
    assert main(["report", str(tmp_path), "--force"]) == 0
    assert main(["report", str(tmp_path)]) == 0
    assert main(["report", str(tmp_path), "-o", str(tmp_path / "new" / "study.html")]) == 0
    assert (tmp_path / "new" / "study.html").is_file()
    (tmp_path / "empty").mkdir()
    capsys.readouterr()
    assert main(["report", str(tmp_path / "empty")]) == 2
    assert "no result" in capsys.readouterr().err


@pytest.mark.slow
def test_a_thousand_results_fit(save, tmp_path):
    first = save("result0000", "doubtful", ["a reason"] * 5, chi2=[2.0] * 40, slices=40)
    for k in range(1, 1000):
        os.link(first, tmp_path / f"result{k:04d}.h5")
    page = write_study_index(tmp_path).read_bytes()
    assert page.count(b"<tr>") == 1001
    assert len(page) < 10_000_000


def test_small_pictures_are_readable(tmp_path):
    from PIL import Image

    image = np.linspace(0, 10, 24 * 20).reshape(24, 20)
    image[0, 0] = np.nan
    small = png.thumbnail(image, 10)
    assert small.shape == (8, 6)
    with Image.open(io.BytesIO(png.gray_png(small, (0, 10)))) as found:
        pixels = np.asarray(found)
    np.testing.assert_array_equal(pixels, np.rint(255 * np.nan_to_num(small) / 10))
    address = png.data_uri(png.gray_png(image, (5, 5)))
    assert base64.b64decode(address.partition(",")[2])[:4] == b"\x89PNG"
