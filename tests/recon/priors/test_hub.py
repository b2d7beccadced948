"""Published networks by name, fetching them, converting and describing files."""

import http.server
import json
import shutil
import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import torch

from recon import load_prior
from recon.cli import main
from recon.errors import CheckpointError, InputError, ReconError, StorageError
from recon.priors import hub_store
from recon.priors.checkpoints import convert_checkpoint, load_checkpoint
from recon.priors.networks.table import ARCHITECTURES


@pytest.fixture
def hub(tmp_path, monkeypatch, make_checkpoint):
    """A hub of one network, kept in a file on this computer, and an empty cache."""
    source = make_checkpoint("edm")
    prior = load_checkpoint(source)
    entry = {
        **hub_store.entries()["inversebench-knee"],
        **{"name": "tiny", "file": "tiny.pt", "url": source.as_uri(), "parameters": prior.n_parameters},
        **{"sha256": prior.card["sha256"], "page": "https://example.org/tiny", "scale": "of the hub"},
    }
    listing = tmp_path / "hub.json"

    def write(**changes):
        listing.write_text(json.dumps({"models": [{**entry, **changes}]}))
        return source

    write()
    monkeypatch.setattr(hub_store, "HUB_FILE", listing)
    monkeypatch.setenv("RECON_CACHE", str(tmp_path / "cache"))
    return write


def test_listing_is_complete():
    known = hub_store.entries()
    assert len(known) >= 7
    needed = {"name", "file", "url", "page", "link", "sha256", "licence", "data", "scale", "channels", "images"}
    needed |= {"sigma_range", "citation", "layout", "parameters"}
    for name, entry in known.items():
        assert needed <= set(entry), name
        assert entry["url"] is None or entry["url"].startswith("https://")
        assert entry["url"] or entry["link"], f"{name}: say why there is no link"
    citations = (Path(__file__).parents[3] / "docs" / "references.bib").read_text("utf-8")
    for entry in known.values():
        assert f"{{{entry['citation']}," in citations


def test_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setenv("RECON_CACHE", str(tmp_path))
    assert hub_store.cache_folder() == tmp_path
    monkeypatch.delenv("RECON_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert hub_store.cache_folder() == tmp_path / "x" / "diffrecon"


def test_nothing_is_fetched_without_being_asked(hub, monkeypatch):
    def refuse(*arguments, **options):
        raise AssertionError("the network was used")

    monkeypatch.setattr(hub_store, "open_url", refuse)
    with pytest.raises(InputError, match=r"not on this computer: fetch it with 'recon models download tiny', or put"):
        load_prior("tiny")
    assert not hub_store.cache_folder().exists()
    assert main(["models"]) == 0


def test_download_verifies_and_load_takes_the_card_of_the_hub(hub, capsys):
    assert main(["models", "download", "tiny"]) == 0
    assert "every tensor accounted for" in capsys.readouterr().out
    prior = load_prior("tiny")
    assert prior.card["scale"] == "of the hub" and prior.card["name"] == "tiny"
    assert main(["models", "info", "tiny"]) == 0
    assert "of the hub" in capsys.readouterr().out
    assert main(["models", "download", "tiny"]) == 2
    assert "already exists" in capsys.readouterr().err
    assert main(["models", "download", "tiny", "--force"]) == 0
    assert main(["models"]) == 0
    assert "tiny                cached" in capsys.readouterr().out


def kept():
    return [path for path in hub_store.cache_folder().rglob("*") if path.is_file() and path.suffix != ".sha256"]


def test_wrong_checksum_keeps_nothing(hub):
    hub(sha256="0" * 64)
    with pytest.raises(CheckpointError, match=r"the download is not this network.*sha256 is .*Nothing was kept"):
        hub_store.download("tiny")
    assert not kept()


def test_without_sha256_tensors_decide(hub, capsys):
    hub(sha256=None)
    assert main(["models", "download", "tiny"]) == 0
    assert "no sha256 is published" in capsys.readouterr().out
    hub(sha256=None, parameters=5)
    with pytest.raises(CheckpointError, match=r"contains a network of layout edm with .* but tiny is edm with 5"):
        load_prior("tiny")
    with pytest.raises(CheckpointError, match="Nothing was kept"):
        hub_store.download("tiny", force=True)
    assert len(kept()) == 1  # what was there before


def test_the_first_download_is_recorded_and_no_other_is_taken(hub, make_checkpoint, capsys):
    source = hub(sha256=None)
    path = hub_store.download("tiny")
    record = path.with_name("tiny.pt.sha256")
    digest = record.read_text().strip()
    assert digest == load_checkpoint(source).card["sha256"] and load_prior("tiny").card["sha256"] == digest

    def other(content):
        content["ema"]["model.out_conv.bias"] += 1

    make_checkpoint("edm", other)  # in place of the first
    with pytest.raises(CheckpointError, match=rf"not this network: .* sha256 is .*{digest}.*Nothing was kept"):
        hub_store.download("tiny", force=True)
    assert load_prior("tiny").card["sha256"] == digest  # the older file stayed
    path.write_bytes(source.read_bytes())
    with pytest.raises(CheckpointError, match=digest):
        load_prior("tiny")
    record.write_text("nothing")
    with pytest.raises(CheckpointError, match="delete it to accept"):
        load_prior("tiny")
    record.unlink()
    assert load_prior("tiny").card["sha256"] != digest
    hub_store.download("tiny", force=True)
    assert record.read_text().strip() == load_checkpoint(source).card["sha256"]


def test_a_file_too_large_for_its_parameters(hub, monkeypatch):
    source = hub(sha256=None)
    monkeypatch.setattr(hub_store, "_OTHER_BYTES", 1000)
    limit = 20 * load_checkpoint(source).n_parameters + 1000
    with open(source, "r+b") as stream:
        stream.truncate(limit + 1)
    with pytest.raises(CheckpointError, match=f"more than {limit:,} bytes"):
        hub_store.download("tiny")
    assert not kept()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A certificate for this computer and its key, in one file."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl makes the certificate")
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    request = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost", "-days", "2"]
    request += ["-addext", "subjectAltName=DNS:localhost", "-keyout", str(path), "-out", str(path) + ".crt"]
    subprocess.run(request, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture
def serve(certificate, monkeypatch):
    """Serve files and redirects on this computer over https; `answers` maps addresses to bytes or other addresses."""
    monkeypatch.setenv("SSL_CERT_FILE", f"{certificate}.crt")
    monkeypatch.setenv("NO_PROXY", "localhost")
    monkeypatch.setenv("no_proxy", "localhost")
    answers, asked = {}, []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.path)
            answer = answers[self.path]
            self.send_response(302 if isinstance(answer, str) else 200)
            if isinstance(answer, str):
                self.send_header("Location", answer)
            self.end_headers()
            self.wfile.write(b"" if isinstance(answer, str) else answer)

        def log_message(self, *arguments):
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Handler) as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"https://localhost:{server.server_port}", answers, asked
        server.shutdown()


@pytest.mark.parametrize(
    "other", ["http://localhost:9/file", "ftp://localhost/file", "file:///etc/hostname", "HTTP://localhost/x"]
)
def test_redirects_lead_to_https_only(hub, serve, other):
    address, answers, asked = serve
    source = hub(url=f"{address}/first")
    answers |= {"/first": f"{address}/second", "/second": source.read_bytes()}
    assert hub_store.download("tiny").read_bytes() == source.read_bytes()
    assert asked == ["/first", "/second"]
    answers["/second"] = other
    with pytest.raises(ReconError, match=rf"(?i)dead or unreachable.*{other}"):
        hub_store.download("tiny", force=True)
    assert len(kept()) == 1


def test_a_web_page_instead_of_the_file(hub):
    source = hub(sha256=None)
    source.write_text("<html>Sign in</html>")
    with pytest.raises(CheckpointError, match="HTML page"):
        hub_store.download("tiny")
    assert not kept()


def test_dead_links_say_what_to_do(hub, tmp_path):
    hub(url=(tmp_path / "gone.pt").as_uri())
    with pytest.raises(
        ReconError, match=r"dead or unreachable.*get it manually from https://example.org/tiny and put it at"
    ):
        hub_store.download("tiny")
    hub(url=None, link="the file was deleted")
    with pytest.raises(InputError, match="cannot be downloaded: the file was deleted; get it manually"):
        hub_store.download("tiny")
    with pytest.raises(InputError, match="the file was deleted"):
        load_prior("tiny")
    hub(url="http://example.org/tiny.pt")
    with pytest.raises(InputError, match="only https"):
        hub_store.download("tiny")
    with pytest.raises(InputError, match="unknown published network 'huge'; choose one of tiny"):
        hub_store.download("huge")
    assert not hub_store.cache_folder().exists() or not kept()


def test_interrupted_download_leaves_nothing(hub, monkeypatch):
    class Cut:
        def __init__(self):
            self.pieces = [b"PK\x03\x04", ConnectionResetError("reset")]

        def read(self, size):
            piece = self.pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            return piece

        def __enter__(self):
            return self

        def __exit__(self, *error):
            return None

    monkeypatch.setattr(hub_store, "open_url", lambda url: Cut())
    with pytest.raises(ReconError, match=r"unreachable .reset"):
        hub_store.download("tiny")
    assert not kept()


def test_damaged_listing(hub, monkeypatch, tmp_path):
    (tmp_path / "hub.json").write_text("{}")
    with pytest.raises(CheckpointError, match="reinstall"):
        load_prior("tiny")


@pytest.mark.parametrize("kind", ["adm", "score-sde", "edm", "ncsnv2", "diffusers"])
def test_converted_files_give_the_same_outputs_bit_for_bit(make_checkpoint, tmp_path, kind, capsys):
    source, target = make_checkpoint(kind), tmp_path / "converted.safetensors"
    assert main(["models", "convert", str(source), str(target)]) == 0
    before, after = load_prior(source), load_prior(target)
    x = torch.randn(2, 18, 13, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    for sigma in (0.02, 1.0, 30.0):
        assert torch.equal(before.denoise(x, sigma), after.denoise(x, sigma))
    assert (before.sigma_min, before.sigma_max) == (after.sigma_min, after.sigma_max)
    assert before.card["scale"] == after.card["scale"]
    assert before.card["architecture"] in ARCHITECTURES
    again = tmp_path / "again.safetensors"
    convert_checkpoint(target, again)
    assert torch.equal(load_prior(again).denoise(x, 1.0), after.denoise(x, 1.0))
    capsys.readouterr()
    assert main(["models", "info", str(target)]) == 0
    told = capsys.readouterr().out
    assert f"{after.n_parameters:,} parameters" in told and "every tensor accounted for" in told


@pytest.mark.slow
def test_conversion_of_published_files(published, tmp_path):
    for index, source in enumerate(sorted(published.glob("*_small.pt*"))):
        target = convert_checkpoint(source, tmp_path / f"{index}.safetensors")
        x = torch.randn(1, 32, 32, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
        assert torch.equal(load_prior(source).denoise(x, 0.5), load_prior(target).denoise(x, 0.5))
    assert index == 3


def test_conversion_does_not_overwrite(make_checkpoint, tmp_path, capsys):
    source = make_checkpoint("edm")
    with pytest.raises(InputError, match=r"ends in \.safetensors"):
        convert_checkpoint(source, tmp_path / "x.pt")
    with pytest.raises(InputError, match="does not exist"):
        convert_checkpoint(source, tmp_path / "absent" / "x.safetensors")
    target = tmp_path / "x.safetensors"
    target.write_text("mine")
    assert main(["models", "convert", str(source), str(target)]) == 2
    assert "already exists" in capsys.readouterr().err and target.read_text() == "mine"
    assert main(["models", "convert", str(source), str(target), "--force"]) == 0
    load_prior(target)


def test_conversion_on_a_full_disk(make_checkpoint, tmp_path):
    resource = pytest.importorskip("resource")
    source, target = make_checkpoint("edm"), tmp_path / "x.safetensors"
    length = convert_checkpoint(source, target).stat().st_size
    ordinary, present = source.stat().st_mode, set(tmp_path.iterdir())
    assert target.stat().st_mode == ordinary
    target.write_text("old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    for size in (0, 1000, length // 2, length - 1):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(StorageError, match=r"x\.safetensors: cannot be written"):
                convert_checkpoint(source, target, force=True)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert target.read_text() == "old" and set(tmp_path.iterdir()) == present


def test_info_of_the_built_in_prior(capsys):
    from recon.priors.hub import WEIGHTS_FOLDER

    assert main(["models", "info", str(WEIGHTS_FOLDER / "brain-mri.safetensors")]) == 0
    assert "brain-mri" in capsys.readouterr().out


def test_options_of_the_authors_are_understood(make_checkpoint):
    path = make_checkpoint("score-sde")
    plain = load_checkpoint(path)
    path.with_suffix(".json").write_text(json.dumps({"model": {"skip_rescale": False}, "data": {"centered": True}}))
    changed = load_checkpoint(path)
    assert plain.card["network"].get("rescale", True) and not changed.card["network"]["rescale"]
    x = torch.ones(1, 16, 16, dtype=torch.complex64)
    assert not torch.allclose(plain.denoise(x, 0.3), changed.denoise(x, 0.3))
    path.with_suffix(".json").write_text(json.dumps({"model": {"resblock_type": "ddpm"}}))
    with pytest.raises(CheckpointError, match="resblock_type"):
        load_checkpoint(path)


def test_the_documented_example_runs(tmp_path, monkeypatch, capsys):
    import re

    page = (Path(__file__).parents[3] / "docs" / "priors.md").read_text("utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(example, "priors.md", "exec"), names)
    assert names["clean"].shape == (1, 40, 30) and torch.isfinite(names["clean"].abs()).all()
    assert "InverseBench" in capsys.readouterr().out
