"""Option, environment variable, file, default: the first that says something counts."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from srrrs.config.errors import ConfigError
from srrrs.config.option import Option
from srrrs.config.policies import POLICY_OPTIONS
from srrrs.config.table import AGENT_OPTIONS, CONFIG, RELAY_OPTIONS
from srrrs.protocol.frames import SERVICE_NAME

Section = Literal["relay", "agent"]

#: Bytes of a configuration file.
MAX_FILE: Final = 1024 * 1024

_SECTIONS: Final[Mapping[str, Sequence[Option]]] = {
    "relay": RELAY_OPTIONS,
    "agent": AGENT_OPTIONS,
}
#: In [agent], the tables of single services: ``[agent.service.NAME]``.
SERVICE: Final = "service"
_POLICIES: Final = {option.name: option for option in POLICY_OPTIONS}
# Between the values of a repeatable option in one variable.
_SEPARATORS: Final = re.compile(r"[\s,]+")


@dataclass(frozen=True, slots=True)
class Setting:
    """A value, or a tuple of them for a repeatable option.

    :ivar origin: where it was said, for messages: ``--listen``, ``SRRRS_LISTEN``,
        ``listen in [relay] of FILE``; or ``--listen`` for a default.
    :ivar given: whether anybody said it at all.
    """

    value: Any
    origin: str
    given: bool


def resolve(
    table: Iterable[Option],
    section: Section,
    given: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
) -> dict[str, Setting]:
    """A setting for every option of a table, by the option's name.

    :param section: the table of the file that counts.
    :param given: the texts of the command line's options, by name; of one that is not repeatable
        the last counts.
    :param environ: the environment; an empty variable counts as not set. Several values of a
        repeatable option stand in one variable, separated by commas or white space.
    :raises ConfigError: a value cannot be used, or the file cannot be read or holds an unknown
        key.
    """
    config = _setting(CONFIG, given, environ, {}, "")
    keys: Mapping[str, object] = {}
    if config.given:
        keys = _read_file(config.value, section)
    where = f"in [{section}] of {config.value}"
    return {option.name: _setting(option, given, environ, keys, where) for option in table}


def _setting(
    option: Option,
    given: Mapping[str, Sequence[str]],
    environ: Mapping[str, str],
    keys: Mapping[str, object],
    where: str,
) -> Setting:
    texts = given.get(option.name, ())
    if texts:
        return _parsed(option, texts, f"--{option.name}")
    variable = environ.get(option.variable, "").strip()
    if variable:
        return _parsed(option, _several(option, variable), option.variable)
    if option.in_file and option.name in keys:
        origin = f"{option.name} {where}"
        return _parsed(option, _texts(option, keys[option.name], origin), origin)
    origin = f"--{option.name}"
    if option.default is None:
        return Setting(() if option.repeatable else None, origin, given=False)
    default = _parsed(option, [option.default], origin)
    return Setting(default.value, origin, given=False)


def _several(option: Option, variable: str) -> list[str]:
    """The texts in a variable."""
    if option.lines:
        return [line for line in variable.splitlines() if line.strip()]
    return _SEPARATORS.split(variable.strip(",")) if option.repeatable else [variable]


def _parsed(option: Option, texts: Sequence[str], origin: str) -> Setting:
    try:
        parsed = [option.value(text) for text in texts]
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error}") from None
    return Setting(tuple(parsed) if option.repeatable else parsed[-1], origin, given=True)


def _texts(option: Option, value: object, origin: str) -> list[str]:
    """A value of the file as the texts that would stand on the command line."""
    if option.flag:
        if not isinstance(value, bool):
            raise ConfigError(f"{origin}: must be true or false")
        return ["true" if value else "false"]
    if option.repeatable and isinstance(value, list):
        if not value:
            raise ConfigError(f"{origin}: the list is empty")
        return [_text(each, origin, "must hold strings or numbers") for each in value]
    wanted = "a string, a number or a list of them" if option.repeatable else "a string or a number"
    return [_text(value, origin, f"must be {wanted}")]


def _text(value: object, origin: str, complaint: str) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ConfigError(f"{origin}: {complaint}")
    return str(value)


def _read_file(path: Path, section: Section) -> Mapping[str, object]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE + 1)
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from None
    if len(data) > MAX_FILE:
        raise ConfigError(f"{path} is longer than {MAX_FILE} bytes")
    try:
        tables = tomllib.loads(data.decode())
    except UnicodeDecodeError:
        raise ConfigError(f"{path} is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: {error}") from None
    for name, keys in tables.items():
        _check_table(path, name, keys)
    keys = {**tables.get(section, {})}
    services = keys.pop(SERVICE, {})
    for name, table in services.items():
        for key, value in table.items():
            option = _POLICIES[key]
            texts = _texts(option, value, f"{key} of {name!r} in {path}")
            said = keys.get(key, [])
            before = said if isinstance(said, list) else [said]
            keys[key] = [*before, *(f"{name}={text}" for text in texts)]
    return keys


def _check_table(path: Path, name: str, keys: object) -> None:
    """Both tables are checked, whoever reads the file: a typing error shows at once."""
    if name not in _SECTIONS:
        raise ConfigError(
            f"unknown key {name!r} in {path}: "
            f"it holds {' and '.join(f'[{each}]' for each in _SECTIONS)} alone"
        )
    if not isinstance(keys, Mapping):
        raise ConfigError(f"{name!r} in {path} must be a table: [{name}]")
    known = [option.name for option in _SECTIONS[name] if option.in_file]
    for key, value in keys.items():
        if key == SERVICE and name == "agent":
            _check_services(path, value)
        else:
            _check_key(path, name, key, known)


def _check_services(path: Path, tables: object) -> None:
    if not isinstance(tables, Mapping):
        raise ConfigError(
            f"{SERVICE!r} in [agent] of {path} must hold tables: [agent.service.NAME]"
        )
    for name, keys in tables.items():
        where = f"agent.{SERVICE}.{name}"
        if not isinstance(keys, Mapping):
            raise ConfigError(f"{SERVICE}.{name} in [agent] of {path} must be a table: [{where}]")
        if not SERVICE_NAME.fullmatch(name):
            raise ConfigError(f"[{where}] of {path}: {name!r} is no service name")
        for key in keys:
            _check_key(path, where, key, list(_POLICIES))


def _check_key(path: Path, table: str, key: str, known: Sequence[str]) -> None:
    if key not in known:
        near = difflib.get_close_matches(key.replace("_", "-"), known, 1)
        hint = f": did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"unknown key {key!r} in [{table}] of {path}{hint}")
