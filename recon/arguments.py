"""The arguments of the command line: one parser for each command; options come from the classes that declare them.

Nothing here loads torch, so that `recon --help` is fast.
"""

import argparse
from collections.abc import Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from recon import __version__, modalities
from recon.run_options import RunConfig


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser = argparse.ArgumentParser(
        prog="recon", description="Raw medical imaging data in, posterior samples with an uncertainty map out."
    )
    parser.add_argument("--version", action="version", version=f"diffrecon {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    run = commands.add_parser("run", parents=[common], help="reconstruct raw-data files")
    run.add_argument("files", nargs="+", type=Path, metavar="FILE", help="raw data of any modality (see recon info)")
    run.add_argument("-o", "--output", type=Path, required=True, metavar="DIR", help="output folder for the results")
    _add_options(run)
    run.add_argument("--config", type=Path, metavar="FILE", help="TOML file of these options; the command line wins")
    run.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    run.add_argument("--force", action="store_true", help="start again: overwrite results and finished slices")
    run.add_argument("--strict", action="store_true", help="exit with status 3 if the verdict on a result is 'failed'")
    run.add_argument("--nifti", action="store_true", help="also write mean, std and interval as NIfTI")
    run.add_argument("--dicom", action="store_true", help="also write mean and std as DICOM series")
    run.add_argument("--no-report", dest="report", action="store_false", help="do not write the PNG and HTML report")
    where = run.add_mutually_exclusive_group()
    _add_workers(where)
    where.add_argument("--scheduler", metavar="ADDRESS", help="workers of a Dask scheduler: tcp://host:8786")
    where.add_argument(
        "--cluster", type=Path, metavar="FILE", help="TOML file of a SLURM, PBS or LSF queue, whose jobs are workers"
    )
    run.add_argument("--quiet", action="store_true", help="print warnings and errors only")
    run.add_argument("--log-json", action="store_true", help="print one JSON object for each slice and file")

    demo = commands.add_parser("demo", parents=[common], help="reconstruct a simulated scan; needs no file")
    folder = Path("diffrecon-demo")
    demo.add_argument("-o", "--output", type=Path, default=folder, metavar="DIR", help="default: %(default)s")
    _add_engine_options(demo, ("samples", "seed", "device", "threads"))
    demo.add_argument("--force", action="store_true", help="overwrite results that exist")

    info = commands.add_parser("info", parents=[common], help="show what a raw-data file or a result contains")
    info.add_argument("file", type=Path, metavar="FILE")
    check = commands.add_parser(
        "check", parents=[common], help="read a whole raw-data file and report whether it is usable"
    )
    check.add_argument("file", type=Path, metavar="FILE")
    status = commands.add_parser("status", parents=[common], help="show how far the run in a folder is")
    status.add_argument("folder", type=Path, metavar="DIR", help="output folder of recon run")
    _add_models(commands)
    samplers = commands.add_parser("samplers", parents=[common], help="list the samplers, or the fields of one")
    samplers.add_argument("name", nargs="?", metavar="NAME")
    report = commands.add_parser(
        "report", parents=[common], help="render a result as PNG and HTML, or index a folder of results"
    )
    report.add_argument("file", type=Path, metavar="FILE", help="a result of recon run, or a folder of them")
    report.add_argument("-o", "--output", type=Path, metavar="PATH", help="output path (default: beside the result)")
    report.add_argument("--calibration", type=Path, metavar="FILE", help="also show the calibrated interval")
    report.add_argument("--group", metavar="NAME", help="group of a calibration that was fitted by groups")
    report.add_argument("--force", action="store_true", help="overwrite a report that exists")
    _add_calibrate(commands, common)
    _add_evaluate(commands, common)
    train = commands.add_parser("train", parents=[common], help="train a prior")
    train.add_argument("--config", type=Path, required=True, metavar="FILE", help="TOML file of the training")
    train.add_argument("--data", metavar="DIR", default=argparse.SUPPRESS, help="folder with the volumes")
    train.add_argument("--output", metavar="DIR", default=argparse.SUPPRESS, help="folder for checkpoint and log")
    train.add_argument(
        "--steps", type=int, metavar="N", default=argparse.SUPPRESS, help="total number of optimiser steps"
    )
    return parser


def _add_models(commands: Any) -> None:
    parser = commands.add_parser("models", help="list priors; describe, convert or download third-party networks")
    # Absent means absent: the parsers of the actions must not undo a --debug before them.
    late = argparse.ArgumentParser(add_help=False)
    late.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help="show the traceback of an error")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    info = actions.add_parser("info", parents=[late], help="verify a weights file and describe its contents")
    info.add_argument("file", type=Path, metavar="FILE", help=".pt, .pth, .safetensors, or a diffusers folder")
    convert = actions.add_parser(
        "convert", parents=[late], help="write the weights needed for inference to one safetensors file"
    )
    convert.add_argument("source", type=Path, metavar="IN")
    convert.add_argument("target", type=Path, metavar="OUT.safetensors")
    convert.add_argument("--force", action="store_true", help="overwrite a file that exists")
    download = actions.add_parser("download", parents=[late], help="download a published network into the cache")
    download.add_argument("name", metavar="NAME", help="a name listed by recon models")
    download.add_argument("--force", action="store_true", help="download it again")


def _add_calibrate(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "calibrate interval coverage on fully sampled data"
    parser = commands.add_parser("calibrate", parents=[common], help=text)
    parser.add_argument(
        "folder", type=Path, metavar="FOLDER", help="fully sampled raw data, separate from any test data"
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="calibration file (.json) to write"
    )
    parser.add_argument(
        "--results",
        type=Path,
        metavar="DIR",
        help="folder for the reconstructions, reused on the next run (default: beside the calibration)",
    )
    parser.add_argument("--level", type=float, default=0.9, help="nominal coverage (default: %(default)s)")
    parser.add_argument(
        "--method",
        choices=("crc", "rcps"),
        default="crc",
        help="guarantee in the mean (crc) or with high probability (rcps)",
    )
    parser.add_argument(
        "--delta", type=float, default=0.1, help="1 minus the confidence of rcps (default: %(default)s)"
    )
    parser.add_argument(
        "--smoothing", type=int, default=1, metavar="K", help="average std^2 over K x K pixels; useful with few samples"
    )
    parser.add_argument("--per", choices=("file", "slice"), default="file", help="what counts as one image")
    parser.add_argument("--groups", type=Path, metavar="FILE", help='JSON of groups: {"scan.h5": "T1", ...}')
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FOLDER",
        help="folder of true images (.npy) named like the files, for files without a reference",
    )
    _add_options(parser)
    _add_workers(parser)
    parser.add_argument("--config", type=Path, metavar="FILE", help="TOML file of these options; the command line wins")
    parser.add_argument("--force", action="store_true", help="start again and overwrite")


def _add_evaluate(commands: Any, common: argparse.ArgumentParser) -> None:
    text = "compare results with their references: coverage, spread, intervals"
    parser = commands.add_parser("evaluate", parents=[common], help=text)
    parser.add_argument("folder", type=Path, metavar="RESULTS", help="folder with results of recon run")
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="DIR", help="output folder for tables and figures"
    )
    parser.add_argument(
        "--reference",
        type=Path,
        metavar="FOLDER",
        help="folder of references named like the results: images (.npy), results or fully sampled raw data "
        "(default: the references in the results)",
    )
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="also evaluate the calibrated intervals")
    parser.add_argument("--groups", type=Path, metavar="FILE", help='JSON of groups: {"scan.h5": "T1", ...}')
    parser.add_argument(
        "--level", type=float, help="nominal coverage of the intervals (default: that of the calibration, or 0.9)"
    )
    parser.add_argument("--no-pictures", dest="pictures", action="store_false", help="write JSON and CSV only")
    parser.add_argument("--force", action="store_true", help="overwrite files that exist")


def _add_workers(parser: Any) -> None:
    parser.add_argument(
        "--workers",
        default="auto",
        metavar="N",
        help="processes among which slices and cores are divided; auto: one for each core where it pays",
    )


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the engine, of the sampler and of every modality."""
    _add_engine_options(parser)
    parser.add_argument(
        "--set",
        dest="sampler_fields",
        action="append",
        default=[],
        metavar="FIELD=VALUE",
        help="set a field of the sampler (recon samplers NAME lists them); may be repeated",
    )
    owners: dict[str, list[tuple[str, Any]]] = {}
    for name in modalities.names():
        for known in fields(modalities.options_of(name)):
            if known.metadata["kind"] is not None:
                owners.setdefault(known.name, []).append((name, known))
    for name in modalities.names():
        group = parser.add_argument_group(f"{name} (TOML table [{name}])")
        for found in owners.values():
            if len(found) == 1 and found[0][0] == name:
                _add_option(group, found[0][1], found[0][1].metadata["help"])
    group = parser.add_argument_group("several modalities")
    for found in owners.values():
        if len(found) > 1:
            _add_option(group, found[0][1], "; ".join(f"{name}: {known.metadata['help']}" for name, known in found))


def _add_engine_options(parser: argparse.ArgumentParser, names: Sequence[str] | None = None) -> None:
    """Add the options common to all modalities, or some of them."""
    group = parser.add_argument_group("reconstruction")
    for known in fields(RunConfig):
        if names is None or known.name in names:
            _add_option(group, known, known.metadata["help"])


def _add_option(group: Any, known: Any, text: str) -> None:
    """Add the option of a field; absent on the command line means absent in the result."""
    flag = "--" + known.name.replace("_", "-")
    if known.metadata["kind"] is bool:
        group.add_argument(flag, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, help=text)
        return
    unit = f", in {known.metadata['unit']}" if known.metadata["unit"] else ""
    default = "" if known.default in (None, MISSING) else f" (default: {known.default})"
    group.add_argument(
        flag,
        type=known.metadata["kind"],
        default=argparse.SUPPRESS,
        metavar=known.metadata["metavar"] or known.name.upper(),
        help=f"{text}{unit}{default}".replace("%", "%%"),
    )
