"""Settings from the command line and a TOML file, before the modality of the data is known."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from recon import modalities
from recon.files.documents import read_toml, toml_value
from recon.options import Options, unknown_option
from recon.run_options import RunConfig


@dataclass(frozen=True)
class Settings:
    """Options of a run, of the modalities and of the sampler.

    Parameters
    ----------
    run : RunConfig
        Options common to all modalities.
    named : mapping
        Modality options given by their bare names.
    tables : mapping
        Options by modality: the TOML tables named after a modality.
    sampler : mapping
        Fields of the sampler.
    """

    run: RunConfig = field(default_factory=RunConfig)
    named: Mapping[str, Any] = field(default_factory=dict)
    tables: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    sampler: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Settings:
        """Read ``name = value`` lines, tables of modalities and the table ``[sampler]``.

        Raises
        ------
        ConfigError
            If the file does not exist or is not TOML, or a key or value is invalid.
        """
        content = read_toml(path)
        tables = {name: content.pop(name) for name in modalities.names() if isinstance(content.get(name), dict)}
        for name, table in tables.items():
            modalities.options_of(name)().updated(table, f"{path}: [{name}]")
        fields = content.pop("sampler") if isinstance(content.get("sampler"), dict) else {}
        if "name" in fields:
            content["sampler"] = fields.pop("name")
        return replace(cls().updated(content, str(path)), tables=tables, sampler=fields)

    def updated(self, values: Mapping[str, Any], origin: str) -> Settings:
        """Return a copy with other values, given by option name.

        Parameters
        ----------
        values : mapping
        origin : str
            Where they were written, for messages.

        Raises
        ------
        ConfigError
            For an unknown name (with the most similar known one), or a value that does not fit.
        """
        from recon.errors import ConfigError

        run = {name: value for name, value in values.items() if name in RunConfig.__dataclass_fields__}
        named = {name: value for name, value in values.items() if name not in run}
        known = [modalities.options_of(name) for name in modalities.names()]
        names = [*RunConfig.__dataclass_fields__, *(name for options in known for name in options.__dataclass_fields__)]
        for name in named:
            if name not in names:
                raise ConfigError(f"{origin}: {unknown_option(name, names)}")
        together = {**self.named, **named}
        for options in known:
            options().updated({k: v for k, v in together.items() if k in options.__dataclass_fields__}, origin)
        return replace(self, run=self.run.updated(run, origin), named=together)

    def with_sampler_fields(self, pairs: list[str]) -> Settings:
        """Return a copy with fields of the sampler from ``["eta=0.5", ...]``.

        Raises
        ------
        ConfigError
            For text in another form.
        """
        from recon.errors import ConfigError

        found = dict(self.sampler)
        for pair in pairs:
            name, equals, text = pair.partition("=")
            if not equals or not name.strip().isidentifier() or not text.strip():
                raise ConfigError(f"--set: expected NAME=VALUE, got {pair!r}")
            found[name.strip()] = toml_value(text.strip())
        return replace(self, sampler=found)

    def options(self, modality: str) -> Options:
        """Return the options of a modality: those of its table, overridden by those given by name."""
        known = modalities.modality(modality)
        return modalities.bind(known, self.named, known.options().updated(self.tables.get(modality, {}), modality))

    def arguments(self, modality: str) -> dict[str, Any]:
        """Return the arguments of `recon.reconstruct` for a source of a modality."""
        chosen = {**asdict(self.run), "options": self.options(modality)}
        del chosen["slices_together"]  # of many slices, which a study draws
        if self.sampler:
            chosen["sampler"] = {"name": self.run.sampler, **self.sampler}
        return chosen

    def plain(self) -> dict[str, Any]:
        """Return all settings as one mapping, for the record of how results were made."""
        tables = {f"{name}.{key}": value for name, table in self.tables.items() for key, value in table.items()}
        fields = {f"sampler.{name}": value for name, value in self.sampler.items()}
        return {**asdict(self.run), **self.named, **tables, **fields}
