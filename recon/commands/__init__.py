"""Implementations of the command-line commands; each returns the exit status."""

from recon.commands.files import check, info, report, status
from recon.commands.reconstruction import demo, run, train
from recon.commands.samplers import samplers
from recon.commands.uncertainty import calibrate, evaluate
from recon.commands.weights import models

__all__ = ["calibrate", "check", "demo", "evaluate", "info", "models", "report", "run", "samplers", "status", "train"]
