"""Damaged, hostile and foreign files: one clear line, nothing run, no partial model."""

import hashlib
import io
import json
import os
import pickle
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from recon import load_prior
from recon.cli import main
from recon.errors import CheckpointError, ConfigError, InputError
from recon.priors.checkpoints import adm, checkpoint_lines, convert_checkpoint, load_checkpoint, load_torchscript

NAME = "model.enc.16x16_block0.conv0.weight"


def refused(path, pattern):
    """The error is a CheckpointError of one line that names the file."""
    with pytest.raises(CheckpointError, match=pattern) as caught:
        load_prior(path)
    assert "\n" not in str(caught.value)
    assert Path(path).name in str(caught.value)


class Bomb:
    """Makes a folder when unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("nested", [False, True], ids=["directly", "nested"])
def test_1_2_pickles_that_run_code(make_checkpoint, tmp_path, nested):
    touched = tmp_path / "touched"
    path = make_checkpoint(
        "edm", lambda content: {**content, "step": [{"a": Bomb(touched)}]} if nested else Bomb(touched)
    )
    refused(path, "refers to (posix|nt).mkdir, which is code, not weights")
    bare = tmp_path / "bare.pt"
    bare.write_bytes(pickle.dumps(Bomb(touched)))
    refused(bare, "bare Python pickle")
    legacy = tmp_path / "legacy.pt"
    torch.save({"w": Bomb(touched)}, legacy, _use_new_zipfile_serialization=False)
    refused(legacy, "bare Python pickle")
    assert not touched.exists()


def test_code_in_a_pickle_by_indirect_names(make_checkpoint, tmp_path):
    """A pickle that builds the name of the function on its stack is refused, too."""
    path = make_checkpoint("edm")
    hostile = pickle.PROTO + b"\x04" + b"\x8c\x05posix\x8c\x06system\x93\x8c\x04true\x85R."
    rewritten(path, lambda name, data: hostile if name.endswith("data.pkl") else data)
    refused(path, "refers to objects by a pickle protocol")


def test_3_legacy_tar(tmp_path):
    path = tmp_path / "old.pt"
    with tarfile.open(path, "w") as archive:
        info = tarfile.TarInfo("storages")
        info.size = 4
        archive.addfile(info, io.BytesIO(b"abcd"))
    refused(path, "tar archive")


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """Write the zip archive again, with each entry changed; checksums are made to fit."""
    with zipfile.ZipFile(path) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, change(name, data))


def test_4_zip_bomb(make_checkpoint):
    path = make_checkpoint("edm")
    big = bytes(64 * 2**20)
    rewritten(path, lambda name, data: big if name.endswith("/data/0") else data, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 2**20
    tracemalloc.start()
    refused(path, "unpacks to more than is stored")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * 2**20


def test_4_a_tensor_that_claims_more_than_it_stores(make_checkpoint):
    def change(content):
        content["ema"][NAME] = torch.zeros(1).expand(content["ema"][NAME].shape)

    refused(make_checkpoint("edm", change), f"{NAME.removeprefix('model.')}.*claims .* but stores fewer")


@pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
def test_5_6_7_truncated(make_checkpoint, share):
    path = make_checkpoint("edm")
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "truncated or damaged")
    converted = path.with_name("c.safetensors")
    path.write_bytes(content)
    convert_checkpoint(path, converted)
    whole = converted.read_bytes()
    converted.write_bytes(whole[: int(share * len(whole))])
    refused(converted, "truncated or damaged")


def test_8_flipped_byte(make_checkpoint, tmp_path):
    path = make_checkpoint("edm")
    converted = convert_checkpoint(path, tmp_path / "c.safetensors")
    plain = tmp_path / "plain.safetensors"
    plain.write_bytes(converted.read_bytes())
    for file, pattern in ((path, "damaged"), (converted, "damaged")):
        content = bytearray(file.read_bytes())
        position = (
            content.find(torch.load(path, weights_only=True)["ema"][NAME].numpy().tobytes()) if file == path else -9
        )
        content[position] ^= 1
        file.write_bytes(content)
        refused(file, pattern)


@pytest.mark.slow
def test_8_any_flipped_byte_is_refused_or_harmless(make_checkpoint):
    path = make_checkpoint("edm")
    content = path.read_bytes()
    expected = load_checkpoint(path).model.state_dict()
    harmless = 0
    for position in range(7, len(content), len(content) // 60):
        path.write_bytes(content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :])
        try:
            found = load_checkpoint(path).model.state_dict()
        except InputError as error:
            assert path.name in str(error)
            continue
        harmless += 1
        assert all(torch.equal(found[name], expected[name]) for name in expected)
    assert harmless < 30


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_9_weights_that_are_not_finite(make_checkpoint, value):
    def change(content):
        content["ema"][NAME].view(-1)[3] = value

    refused(make_checkpoint("edm", change), f"{NAME.removeprefix('model.')}.*NaN or infinity")


def test_10_wrong_shape(make_checkpoint):
    def change(content):
        for key in ("net", "ema"):
            content[key]["model.out_norm.weight"] = torch.zeros(5)

    refused(make_checkpoint("edm", change), r"expected shape \(8,\) of 'out_norm.weight', got \(5,\)")

    def only_ema(content):
        content["ema"][NAME] = content["ema"][NAME][:, :3].clone()

    refused(make_checkpoint("edm", only_ema), r"shape .* of the EMA of 'enc.16x16_block0.conv0.weight', got")


def test_11_missing_and_unexpected_keys(make_checkpoint):
    def lose(content):
        del content["ema"]["model.out_norm.bias"]

    refused(make_checkpoint("edm", lose), "missing 'out_norm.bias'")

    def add(content):
        content["ema"]["model.mystery"] = torch.zeros(2)

    refused(make_checkpoint("edm", add), "unexpected 'mystery'")

    def frequencies(content):
        content["model"] = {k.replace("all_modules.0.W", "all_modules.0.V"): v for k, v in content["model"].items()}

    refused(make_checkpoint("score-sde", frequencies), "unknown layout")

    def shorter(content):
        content["ema"]["shadow_params"].pop()

    refused(make_checkpoint("score-sde", shorter), "in the EMA list, got")

    def exchanged(content):
        shadow = content["ema"]["shadow_params"]
        shadow[0], shadow[1] = shadow[1], shadow[0]

    refused(make_checkpoint("score-sde", exchanged), "shape .* of the EMA tensor of 'all_modules.1.weight', got")


def test_12_sha256(make_checkpoint):
    path = make_checkpoint("edm")
    path.with_suffix(".json").write_text(json.dumps({"sha256": "0" * 64}))
    refused(path, "sha256 is .*its card says 0000")
    good = load_checkpoint(path, card={}).card["sha256"]
    path.with_suffix(".json").write_text(json.dumps({"sha256": good, "scale": "mine"}))
    assert load_prior(path).card["scale"] == "mine"


def test_averaged_weights_are_taken_and_frequencies_are_not_lost(make_checkpoint):
    kept = {}

    def keep(content):
        kept.update(content)

    prior = load_checkpoint(make_checkpoint("score-sde", keep))
    layers = prior.model.network.all_modules
    assert torch.equal(layers[0].W, kept["model"]["module.all_modules.0.W"])
    assert torch.equal(layers[1].weight, kept["ema"]["shadow_params"][0])
    prior = load_checkpoint(make_checkpoint("edm", keep))
    assert torch.equal(prior.model.network.out_norm.weight, kept["ema"]["model.out_norm.weight"])
    lists = []
    prior = load_checkpoint(make_checkpoint("ncsnv2", lists.extend))
    assert torch.equal(prior.model.network.begin_conv.weight, lists[4]["begin_conv.weight"])
    assert prior.sigma_max == pytest.approx(100 * 2**0.5)


@pytest.mark.parametrize(
    ("content", "pattern"),
    [
        (b"", "empty"),
        (b"<!DOCTYPE html><html>Sign in", "HTML page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git-lfs"),
        (b"\x00" * 600, "neither a torch archive"),
    ],
)
def test_files_that_are_no_weights(tmp_path, content, pattern):
    path = tmp_path / "w.pt"
    path.write_bytes(content)
    refused(path, pattern)


def test_other_archives_and_unknown_layouts(make_checkpoint, tmp_path):
    plain = tmp_path / "plain.pt"
    with zipfile.ZipFile(plain, "w") as archive:
        archive.writestr("readme.txt", "hello")
    refused(plain, "not one written by torch.save")
    refused(make_checkpoint("edm", lambda content: {"weights": torch.zeros(3)}), "unknown layout .*weights")
    refused(make_checkpoint("edm", lambda content: "text"), "unknown layout")
    with pytest.raises(InputError, match="does not exist"):
        load_prior(tmp_path / "absent.pt")
    header = (2**60).to_bytes(8, "little") + b"{"
    (tmp_path / "w.safetensors").write_bytes(header + b" " * 50)
    refused(tmp_path / "w.safetensors", "truncated or damaged")


@pytest.mark.parametrize(
    ("card", "pattern"),
    [
        ("{", "the card .*is not JSON"),
        ("[1]", "JSON object"),
        ('{"scale": "x", "colour": 1}', "unknown card key 'colour'"),
        ('{"gian": 0.7}', "unknown card key 'gian'"),
        ('{"sha265": "00", "name": "x", "colour": 1}', "unknown card key 'sha265', 'colour'"),
        ('{"parametrization": {"sigmamin": 3, "sigmamax": 4}}', "unknown parametrization key 'sigmamax', 'sigmamin'"),
        ('{"num_head_channels": 32, "name": "x"}', "nor a configuration of edm: it has 'num_head_channels', 'name'"),
        ('{"gain": "two"}', "'gain'"),
        ('{"gain": -1}', "gain"),
        ('{"network": {"head_channels": 3, "wings": 2}}', "wings"),
        ('{"network": {"res_blocks": 1000000000}}', "res_blocks"),
        ('{"parametrization": {"kind": "flow"}}', "flow"),
        ('{"parametrization": {"sigma_max": "wide"}}', "card does not specify"),
        ('{"parametrization": {"sigma_min": 3, "sigma_max": 1}}', "sigma_min < sigma_max"),
    ],
)
def test_cards_that_make_no_sense(make_checkpoint, card, pattern):
    path = make_checkpoint("edm")
    path.with_suffix(".json").write_text(card)
    with pytest.raises(CheckpointError, match=pattern):
        load_prior(path)


@pytest.mark.parametrize("kind", ["adm", "score-sde", "edm", "ncsnv2", "diffusers"])
def test_a_card_may_hold_a_name_alone(make_checkpoint, kind):
    path = make_checkpoint(kind)
    path.with_suffix(".json").write_text('{"name": "x", "data": "knees"}')
    assert load_prior(path).card["data"] == "knees"


@pytest.mark.parametrize(
    ("kind", "change"),
    [
        ("edm", lambda content: content.update(net=content["ema"], ema=[torch.ones(1)])),
        ("score-sde", lambda content: content.update(ema="later")),
        ("score-sde", lambda content: content.update(model_ema=content.pop("ema")["decay"])),
        ("score-sde", lambda content: content.update(ema={"model": {"module.all_modules.1.bias": torch.ones(8)}})),
        ("edm", lambda content: content.update(shadow_params=list(content.pop("ema").values()))),
        ("score-sde", lambda content: content["ema"].update(shadow_params=5)),
        ("ncsnv2", lambda content: content.__setitem__(4, "junk")),
    ],
)
def test_averaged_weights_that_are_not_understood_are_not_passed_over(make_checkpoint, kind, change):
    refused(make_checkpoint(kind, change), "averaged weights")


def test_averaged_weights_in_other_places(make_checkpoint):
    def nested(content):
        content["ema"] = {"model": content["ema"], "num_updates": 7}

    def named(content):
        content["ema"] = {**{name: 2 * value for name, value in content["model"].items()}, "decay": 0.999}

    def counted(content):
        weights = {"module." + name: value for name, value in content["ema"].items()}
        content["ema"] = {**weights, "n_averaged": torch.tensor(7)}

    def elsewhere(content):
        content["model_ema"] = content.pop("ema")

    def bare(content):
        content["shadow_params"] = content.pop("ema")["shadow_params"]

    def turned(content):
        content["ema"]["shadow_params"] = tuple(content["ema"]["shadow_params"])

    assert load_prior(make_checkpoint("edm", nested)).card["weights"] == "EMA"
    assert load_prior(make_checkpoint("score-sde", named)).card["weights"] == "EMA"
    assert load_prior(make_checkpoint("edm", counted)).card["weights"] == "EMA"
    for change in (turned, elsewhere, bare):
        assert load_prior(make_checkpoint("score-sde", change)).card["weights"].startswith("EMA")


def test_a_card_beside_a_folder_counts(make_checkpoint, tmp_path, monkeypatch):
    folder = make_checkpoint("diffusers")
    card = tmp_path / "diffusers.json"
    card.write_text('{"gain": 0.5}')
    assert load_prior(folder).gain == 0.5
    monkeypatch.chdir(folder)
    assert load_checkpoint(".").gain == 0.5
    for wrong, pattern in (
        ({"sha256": "0" * 64}, "its card says 0000"),
        ({"gain": "two"}, "'gain'"),
        ({"num_heads": 4}, "nor a configuration of diffusers"),
    ):
        card.write_text(json.dumps(wrong))
        with pytest.raises(CheckpointError, match=pattern):
            load_prior(folder)


def test_diffusers_schedulers_that_are_not_those_of_ddpm(make_checkpoint):
    folder = make_checkpoint("diffusers")
    (folder / "scheduler").mkdir(exist_ok=True)
    for change, pattern in (
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEuler"),
        ({"_class_name": "EDMEulerScheduler"}, "EDMEuler"),
        ({"_class_name": "DDIMScheduler", "trained_betas": [0.1]}, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ):
        (folder / "scheduler" / "scheduler_config.json").write_text(json.dumps(change))
        refused(folder, pattern)


def test_options_of_guided_diffusion_are_used_or_refused(make_checkpoint):
    path = make_checkpoint("adm")
    for flags, pattern in (
        ({"num_heads": 3, "num_head_channels": -1}, "num_heads = 3 does not divide 64"),
        ({"num_heads": 4, "num_heads_upsample": 2}, "num_heads = 4"),
        ({"diffusion_steps": 4000, "rescale_timesteps": True}, "rescale_timesteps"),
    ):
        path.with_suffix(".json").write_text(json.dumps({"image_size": 32, **flags}))
        with pytest.raises(CheckpointError, match=pattern):
            load_prior(path)
    path.with_suffix(".json").write_text(json.dumps({"num_heads": 4}))  # the width is -1 where it is not given
    prior = load_prior(path)
    assert prior.card["network"]["head_channels"] == 16 and prior.model.network.middle_block[1].heads == 4
    several = {"model_channels": 32, "channel_mult": [1, 2], "attention_levels": [0]}
    with pytest.raises(CheckpointError, match="attention is 32, 64 channels wide"):
        adm.settings({"num_heads": 4, "num_head_channels": -1}, several)


def test_steps_of_guided_diffusion_are_those_of_its_flags(make_checkpoint):
    path = make_checkpoint("adm")
    usual = load_prior(path)
    for given in (
        {"predict_xstart": True, "diffusion_steps": 4000},
        {"parametrization": {"prediction": "sample", "steps": 4000}},
    ):
        path.with_suffix(".json").write_text(json.dumps(given))
        prior = load_prior(path)
        assert prior.model.prediction == "sample" and len(prior.model.log_sigmas) == 4000
        assert prior.sigma_max == pytest.approx(usual.sigma_max, rel=0.1)


def test_the_width_of_heads_that_nobody_tells_is_said(make_checkpoint):
    path = make_checkpoint("adm")
    assert not any(line.startswith("  heads") for line in checkpoint_lines(path))
    path.with_suffix(".json").unlink()
    assert any("64 channels wide (assumed" in line for line in checkpoint_lines(path))
    assert not any(line.startswith("  heads") for line in checkpoint_lines(make_checkpoint("edm")))  # without attention


def test_wrong_endings_names_and_devices_are_one_clear_line(make_checkpoint, tmp_path, capsys):
    source = make_checkpoint("adm")
    wrong = source.rename(source.with_suffix(".safetensors"))
    refused(wrong, "rename it to .pt")
    for name in ("", "."):
        with pytest.raises(InputError, match="unknown prior"):
            load_prior(name)
        assert main(["models", "info", name]) == 2
        assert "expected a file or the name" in capsys.readouterr().err
    for device in ("banana", "cuda:99"):
        with pytest.raises(ConfigError, match="device"):
            load_prior("brain-mri", device=device)
    assert main(["models", "info", "brain-mri"]) == 0
    assert "brain-mri" in capsys.readouterr().out


def test_a_converted_file_may_lie_beside_the_card_of_its_source(make_checkpoint):
    source = make_checkpoint("edm")
    digest = hashlib.sha256(source.read_bytes()).hexdigest()
    source.with_suffix(".json").write_text(json.dumps({"sha256": digest.upper()}))
    load_prior(source)
    target = convert_checkpoint(source, source.with_suffix(".safetensors"))
    load_prior(target)
    source.with_suffix(".json").write_text(json.dumps({"sha256": "0" * 64}))
    refused(target, "its card says")


def test_diffusers_folders_that_do_not_work(make_checkpoint):
    folder = make_checkpoint("diffusers")
    config = json.loads((folder / "config.json").read_text())
    for change, pattern in (
        ({"act_fn": "gelu"}, "act_fn"),
        ({"down_block_types": ["SkipDownBlock2D", "DownBlock2D"]}, "SkipDownBlock2D"),
        ({"layers_per_block": 10**9}, "res_blocks"),
        ({"_class_name": "UNet3D"}, "unknown layout"),
        ({"layers_per_block": 2}, "missing"),
    ):
        (folder / "config.json").write_text(json.dumps({**config, **change}))
        refused(folder, pattern)
    (folder / "diffusion_pytorch_model.safetensors").unlink()
    refused(folder, "no diffusion_pytorch_model.safetensors")


@pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")
def test_torchscript_only_on_request(tmp_path):
    class Half(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.factor = torch.nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            return self.factor * x / (1 + sigma[:, None, None, None])

    path = tmp_path / "program.pt"
    scripted = torch.jit.trace(Half(), (torch.zeros(1, 2, 4, 4), torch.ones(1)))
    scripted.save(str(path))
    refused(path, "TorchScript program, which is code")
    prior = load_torchscript(path, sigma_min=0.01, sigma_max=10.0)
    x = torch.ones(1, 4, 4, dtype=torch.complex64)
    torch.testing.assert_close(prior.denoise(x, 2**0.5), x / 4)
    batch = x.repeat(6, 1, 1)  # in pieces: nobody can count the layers of a program
    torch.testing.assert_close(prior.denoise(batch, 2**0.5), batch / 4)
    (tmp_path / "no.pt").write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(CheckpointError, match="not a TorchScript program"):
        load_torchscript(tmp_path / "no.pt", sigma_min=0.01, sigma_max=10.0)


def test_command_line_says_one_line_and_exits_2(make_checkpoint, capsys):
    path = make_checkpoint("edm")
    path.write_bytes(path.read_bytes()[:500])
    for command in (["info", str(path)], ["convert", str(path), str(path.with_suffix(".safetensors"))]):
        assert main(["models", *command]) == 2
        told = capsys.readouterr()
        assert told.err.count("\n") == 1 and path.name in told.err and not told.out
    assert sorted(file.name for file in path.parent.iterdir()) == ["edm.pt"]


def test_plain_safetensors_of_a_known_layout(make_checkpoint, tmp_path):
    """State dicts that others saved as safetensors are recognised like .pt files; without digest, sha256 is advised."""
    state = torch.load(make_checkpoint("edm"), weights_only=True)["ema"]
    path = tmp_path / "other.safetensors"
    save_file(state, path)
    assert load_prior(path).card["architecture"] == "edm-dhariwal"
