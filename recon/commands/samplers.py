"""`recon samplers`: the available samplers, and every field that can be set."""

from recon.commands.text import sampler_lines
from recon.engine.samplers import resolve_sampler, sampler_names


def samplers(name: str | None = None) -> int:
    """List the samplers, or describe one of them with its fields."""
    if name is not None:
        print("\n".join(sampler_lines(name, resolve_sampler(name))))
        print("set a field with --set FIELD=VALUE, or in the table [sampler] of a TOML file")
        return 0
    for known in sampler_names():
        print(sampler_lines(known, resolve_sampler(known))[0])
    return 0
