"""The plane-wave operator: laws, arrival times from first principles, interpolation, kinds of data, bad input."""

import importlib.util
import math
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from operators import Grid, InputError, PlaneWaveGeometry, PlaneWaveUltrasound, ShapeError, check_operator
from operators.ultrasound.delays.plan import make_plan
from operators.ultrasound.delays.torch_engine import TorchDelays, add_sorted, add_up, placed

ENGINES = ["torch", *(["numba"] if importlib.util.find_spec("numba") else [])]
GRID = Grid(np.linspace(-1.9e-3, 2e-3, 6), np.linspace(2e-3, 6e-3, 7))


def probe(count: int = 5, pitch: float = 0.7e-3) -> np.ndarray:
    return np.stack([(np.arange(count) - (count - 1) / 2) * pitch, np.zeros(count)], 1)


def geometry(**options: Any) -> PlaneWaveGeometry:
    values = {"element_positions": probe(), "angles": [-0.1, 0.2], "sampling_frequency": 20e6, "sample_count": 100}
    values |= {"center_frequency": 5e6, "sound_speed": 1540.0, "initial_times": [3e-6, 2e-6], "element_width": 3e-4}
    return PlaneWaveGeometry(**(values | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(
    ("recorded", "modelled"),
    [
        ({}, {}),
        ({"attenuation": 0.5}, {"interpolation": "cubic", "f_number": 0.8}),
        ({"demodulation_frequency": 5e6}, {"interpolation": "sinc", "spreading": "spherical"}),
        ({"is_complex": True}, {"spreading": "none", "directivity": False, "transmit_mask": False}),
        ({"demodulation_frequency": 4e6, "sampling_frequency": 5e6, "sample_count": 30}, {}),
    ],
    ids=["rf", "attenuated", "iq", "analytic", "decimated"],
)
def test_laws(recorded: dict[str, Any], modelled: dict[str, Any], engine: str, dtype: torch.dtype) -> None:
    check_operator(PlaneWaveUltrasound(geometry(**recorded), GRID, engine=engine, **modelled), dtype=dtype, trials=2)


@pytest.mark.parametrize("engine", ENGINES[1:])
def test_engines_agree(engine: str) -> None:
    x = torch.randn(2, *GRID.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(0))
    options: dict[str, Any] = {"interpolation": "cubic", "f_number": 0.8}
    recorded = geometry(attenuation=0.5, element_positions=np.insert(probe(), 1, 1e-4, axis=1))
    truth = PlaneWaveUltrasound(recorded, GRID, engine="torch", **options)(x)
    torch.testing.assert_close(PlaneWaveUltrasound(recorded, GRID, engine=engine, **options)(x), truth)
    single = PlaneWaveUltrasound(recorded, GRID, engine=engine, **options)(x.to(torch.complex64))
    assert float((single - truth).abs().max() / truth.abs().max()) < 2e-3


def test_the_plan_stays_on_the_device_of_the_data() -> None:
    """Torch's device without values stands for a GPU."""
    delays = PlaneWaveUltrasound(geometry(), GRID, engine="torch").engine._torch
    image = torch.zeros(1, *GRID.shape, dtype=torch.complex64, device="meta")
    data = delays.scatter(image)
    assert delays.gather(data).is_meta
    there = placed(delays.plan, image)
    assert all(value is None or (value.is_meta and value.dtype == torch.float32) for value in there)
    assert placed(delays.plan, data) is there


def test_echoes_arrive_when_and_where_they_must() -> None:
    acquired = geometry(sample_count=400, angles=[0.0, 0.3], initial_times=[1e-6, 0.5e-6], is_complex=True)
    x0, z0 = 1.1e-3, 7.3e-3
    operator = PlaneWaveUltrasound(acquired, Grid([x0], [z0]), directivity=False, spreading="none", transmit_mask=False)
    data = operator(operator.from_reflectivity(torch.ones(1, 1, dtype=torch.complex128)))
    for k, (angle, start) in enumerate(zip([0.0, 0.3], [1e-6, 0.5e-6], strict=True)):
        for e, (xe, _) in enumerate(probe()):
            arrival = (x0 * math.sin(angle) + z0 * math.cos(angle) + math.hypot(x0 - xe, z0)) / 1540
            times = start + np.arange(400) / 20e6
            envelope = data[k, e].abs().numpy()
            assert abs((times * envelope).sum() / envelope.sum() - arrival) < 1e-9
            n = int(envelope.argmax())
            phase = math.remainder(float(data[k, e, n].angle()) - 2 * math.pi * 5e6 * (times[n] - arrival), 2 * math.pi)
            assert abs(phase) < 1e-2
    assert float(data.abs().max()) == pytest.approx(1, abs=0.03)


def test_weights_follow_their_formulas() -> None:
    acquired = geometry(angles=[0.2], initial_times=0.0, attenuation=0.7, is_complex=True, sample_count=300)
    x0, z0 = 0.9e-3, 8e-3
    operator = PlaneWaveUltrasound(acquired, Grid([x0], [z0]), interpolation="sinc", transmit_mask=False)
    plain = PlaneWaveUltrasound(
        geometry(angles=[0.2], initial_times=0.0, is_complex=True, sample_count=300),
        *(Grid([x0], [z0]),),
        interpolation="sinc",
        transmit_mask=False,
        spreading="none",
        directivity=False,
    )
    one = torch.ones(1, 1, dtype=torch.complex128)
    ratio = (operator(one).abs().sum(-1) / plain(one).abs().sum(-1))[0].numpy()
    r = np.hypot(x0 - probe()[:, 0], z0)
    sine, cosine = (x0 - probe()[:, 0]) / r, z0 / r
    way = r + x0 * math.sin(0.2) + z0 * math.cos(0.2)
    expected = np.sinc(3e-4 * sine / acquired.wavelength) * cosine * np.sqrt(0.01 / r)
    np.testing.assert_allclose(ratio, expected * 10 ** (-0.7 * 5 * way * 100 / 20), rtol=1e-5)


def test_aperture_shades_what_its_wave_misses() -> None:
    acquired = geometry(angles=[0.0], initial_times=0.0, transmit_aperture=(-1e-3, 1e-3))
    plan = make_plan(acquired, Grid([-8e-3, 0.0, 8e-3], [3e-3]), transmit_mask=True)
    assert plan.transmit_weights is not None
    np.testing.assert_allclose(plan.transmit_weights[0, 0], [0, 1, 0])


@pytest.mark.parametrize(("interpolation", "least"), [("linear", 0.9985), ("cubic", 0.9995), ("sinc", 0.9999)])
def test_interpolation_against_fine_sampling(interpolation: str, least: float) -> None:
    generator = torch.Generator().manual_seed(3)
    grid = Grid(np.linspace(-3e-3, 3e-3, 31), np.linspace(4e-3, 7e-3, 40))
    acquired = geometry(element_positions=probe(8), angles=[0.1], initial_times=4e-6, sample_count=120)
    image = torch.randn(grid.shape, dtype=torch.complex128, generator=generator)
    coarse = PlaneWaveUltrasound(acquired, grid, interpolation=interpolation)
    fine = PlaneWaveUltrasound(acquired, grid, interpolation="linear", oversampling=8)
    data = fine(image)
    a, b = coarse.H(data).abs().flatten(), fine.H(data).abs().flatten()
    correlation = float(torch.corrcoef(torch.stack([a, b]))[0, 1])
    assert correlation > least
    both = torch.stack([coarse(image).flatten(), data.flatten()])
    assert float(torch.corrcoef(both)[0, 1]) > least


def test_iq_is_demodulated_rf() -> None:
    image = torch.randn(GRID.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(1))
    rf = PlaneWaveUltrasound(geometry(), GRID)(image)
    iq = PlaneWaveUltrasound(geometry(demodulation_frequency=4.5e6), GRID)(image)
    times = torch.tensor([[3e-6], [2e-6]], dtype=torch.float64)[..., None] + torch.arange(100).double() / 20e6
    back = (iq * torch.exp(2j * math.pi * 4.5e6 * times)).real
    torch.testing.assert_close(back, rf, rtol=1e-5, atol=1e-5)


def test_selected_channels_are_those_of_all() -> None:
    image = torch.randn(GRID.shape, dtype=torch.complex128, generator=torch.Generator().manual_seed(2))
    whole = geometry(demodulation_frequency=5e6)
    part = whole.select(angles=[1], elements=[0, 3], decimation=5)
    expected = PlaneWaveUltrasound(whole, GRID, oversampling=5)(image)[1:, [0, 3], ::5]
    torch.testing.assert_close(PlaneWaveUltrasound(part, GRID, oversampling=25)(image), expected)


def test_sorted_sums_are_those_of_the_plain_scatter() -> None:
    generator = torch.Generator().manual_seed(4)
    values = torch.randn(2, 3, 50, dtype=torch.complex64, generator=generator)
    place = torch.randint(0, 12, (3, 50), generator=generator)
    torch.testing.assert_close(add_sorted(values, place, 11), add_up(values, place, 11))


def test_adjoint_drops_echoes_outside_the_record() -> None:
    acquired = geometry(sample_count=8, initial_times=0.0)  # all echoes come later
    operator = PlaneWaveUltrasound(acquired, Grid([0.0], [0.02]))
    assert float(operator(torch.ones(1, 1, dtype=torch.complex64)).abs().max()) == 0
    assert float(operator.H(torch.ones(acquired.shape)).abs().max()) == 0
    assert (
        TorchDelays(operator.engine.plan).gather(torch.ones(1, 2, 5, operator.engine.plan.length) + 0j).abs().max() == 0
    )


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"element_positions": np.zeros((0, 2))}, InputError, "at least one element"),
        ({"element_positions": probe() * 1e3}, InputError, "in mm"),
        ({"element_positions": np.zeros(4)}, ShapeError, "element, 2 or 3"),
        ({"element_positions": probe() * np.nan}, InputError, "not finite"),
        ({"angles": []}, InputError, "at least one angle"),
        ({"angles": [0, 16.0]}, InputError, "in degrees"),
        ({"initial_times": [0, 1, 2]}, ShapeError, "initial_times"),
        ({"sound_speed": 0.0}, InputError, "sound_speed"),
        ({"sample_count": 0}, InputError, "sample_count"),
        ({"demodulation_frequency": 5e6, "is_complex": False}, InputError, "complex"),
    ],
)
def test_bad_geometry_is_one_clear_line(options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as caught:
        geometry(**options)
    assert "\n" not in str(caught.value)


def test_bad_use_is_one_clear_line() -> None:
    with pytest.raises(InputError, match="angle out of range"):
        geometry().select(angles=[2])
    with pytest.raises(InputError, match="increasing"):
        Grid([1e-3, 0], [1e-3])
    with pytest.raises(InputError, match="in mm"):
        Grid([0.0], [5.0, 20.0])
    with pytest.raises(InputError, match="unknown engine"):
        PlaneWaveUltrasound(geometry(), GRID, engine="fortran")
    with pytest.raises(InputError, match="interpolation"):
        PlaneWaveUltrasound(geometry(), GRID, interpolation="nearest")
    with pytest.raises(InputError, match="PlaneWaveGeometry"):
        PlaneWaveUltrasound(GRID, GRID)  # type: ignore[arg-type]
    with pytest.raises(ShapeError, match="odd number"):
        PlaneWaveUltrasound(geometry(), GRID, pulse=np.ones(4))
    with pytest.raises(ShapeError, match="complex"):
        PlaneWaveUltrasound(geometry(), GRID)(torch.ones(GRID.shape))


@pytest.mark.skipif("numba" not in ENGINES, reason="numba is not installed")
@pytest.mark.slow
def test_the_first_kernel_leaves_torch_its_number_of_threads() -> None:
    """The thread pool of numba sets that of the process at its first use, so this needs a process of its own."""
    program = """
import os
os.environ.pop("NUMBA_NUM_THREADS", None)
import numpy as np, torch
torch.set_num_threads(1)
from operators import Grid, PlaneWaveGeometry, PlaneWaveUltrasound
elements = np.stack([np.arange(5) * 7e-4, np.zeros(5)], 1)
geometry = PlaneWaveGeometry(
    element_positions=elements, angles=[0.0], sampling_frequency=20e6, sample_count=100, center_frequency=5e6,
    sound_speed=1540.0, initial_times=[3e-6], element_width=3e-4,
)
grid = Grid(np.linspace(-1.9e-3, 2e-3, 6), np.linspace(2e-3, 6e-3, 7))
operator = PlaneWaveUltrasound(geometry, grid, engine="numba")
operator(torch.zeros(operator.domain.shape, dtype=torch.complex64))
print(torch.get_num_threads())
"""
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "1"
