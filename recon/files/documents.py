"""Reading JSON and TOML written by others: any fault of the text is one typed error in one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from typing import Any

from recon.errors import ConfigError, InputError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

#: Largest size of a document in bytes, and deepest nesting of its tables and lists.
LARGEST, DEEPEST = 16 * 2**20, 64


def read_json(path: str | os.PathLike[str], error: type[Exception] = InputError, what: str = "") -> dict[str, Any]:
    """Return the JSON object in a file.

    Parameters
    ----------
    path : path
    error : type, optional
        Error to raise.
    what : str
        What the file is, for messages, such as "the model card".

    Raises
    ------
    InputError, or ``error``
        If the file cannot be read, is too large, or is anything but a JSON object of moderate depth.
    """
    where = f"{what} {path}".strip()
    content = parse_json(_text(path, where, error), where, error)
    if not isinstance(content, dict):
        raise error(f"{where}: expected a JSON object, got {type(content).__name__}")
    return content


def parse_json(text: str, where: str, error: type[Exception] = InputError) -> Any:
    """Return the value that a JSON text stands for; ``where`` begins the message of an error."""

    def parse() -> Any:
        content = json.loads(text)
        # Halves of surrogate pairs can be neither printed nor written.
        json.dumps(content, ensure_ascii=False).encode("utf-8")
        return content

    return _parsed(parse, "JSON", where, error)


def read_toml(path: str | os.PathLike[str], what: str = "") -> dict[str, Any]:
    """Return the table in a TOML file.

    Raises
    ------
    ConfigError
        If the file cannot be read, is too large, or is not valid TOML of moderate depth.
    """
    where = f"{what} {path}".strip()
    text = _text(path, where, ConfigError)
    table: dict[str, Any] = _parsed(lambda: tomllib.loads(text), "valid TOML", where, ConfigError)
    return table


def toml_value(text: str) -> Any:
    """Return text as a TOML value: number, true, false or quoted string; "none" is None, other words are strings."""
    if text.lower() == "none":
        return None
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text


def _text(path: str | os.PathLike[str], where: str, error: type[Exception]) -> str:
    """Return the text of a file."""
    try:
        with open(path, "rb") as stream:
            content = stream.read(LARGEST + 1)
        if len(content) > LARGEST:
            raise error(f"{where}: expected at most {LARGEST} bytes, got more")
        return content.decode("utf-8").replace("\r\n", "\n")
    except OSError as fault:
        raise error(f"{where}: cannot be read ({fault.strerror or fault})") from fault
    except UnicodeDecodeError as fault:
        raise error(f"{where}: expected UTF-8 text, got the byte 0x{fault.object[fault.start]:02x}") from fault
    except error:
        raise
    except ValueError as fault:  # a null byte in the path
        raise error(f"{where}: cannot be read ({fault})") from fault


def _parsed(parse: Callable[[], Any], kind: str, where: str, error: type[Exception]) -> Any:
    """Return a parsed document, not too deep for what is done with it afterwards."""
    try:
        content = parse()
    except UnicodeEncodeError as fault:
        raise error(f"{where}: is not {kind} (half a surrogate pair in its text)") from fault
    except ValueError as fault:
        raise error(f"{where}: is not {kind} ({' '.join(str(fault).split())})") from fault
    except RecursionError as fault:
        raise error(f"{where}: expected nesting up to {DEEPEST} levels, got more") from fault
    if _deeper(content, DEEPEST):
        raise error(f"{where}: expected nesting up to {DEEPEST} levels, got more")
    return content


def _deeper(content: Any, limit: int) -> bool:
    """Tell whether tables and lists are nested more than ``limit`` levels deep."""
    level = [content]
    for _ in range(limit + 1):
        containers = [value for value in level if isinstance(value, dict | list)]
        level = [item for value in containers for item in (value.values() if isinstance(value, dict) else value)]
        if not level:
            return False
    return any(isinstance(value, dict | list) for value in level)
