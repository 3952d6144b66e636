"""Where an agent's token comes from."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from srrrs.config.errors import ConfigError, TokenUnavailable

#: Bytes of a token file; a longer one holds something else.
MAX_TOKEN_FILE: Final = 4096

# What may stand behind "Bearer " (RFC 6750, 2.1).
_TOKEN: Final = re.compile(r"[A-Za-z0-9._~+/-]+=*")
_VARIABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True, slots=True)
class TokenSource:
    """A token, or where to read it at each dial, so that a rotated one is taken up by itself.

    Make it with :meth:`parse`. Neither ``repr`` nor ``str`` shows a secret.
    """

    file: Path | None = None
    variable: str | None = None
    _value: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, text: str) -> TokenSource:
        """``file:PATH``, ``env:NAME``, or the token itself.

        :raises ConfigError: it is none of them; the text is not repeated, for it may be a secret.
        """
        scheme, colon, rest = text.partition(":")
        if colon and scheme == "file":
            if not rest:
                raise ConfigError("file: needs a path behind it")
            return cls(file=Path(rest).expanduser().absolute())
        if colon and scheme == "env":
            if not _VARIABLE.fullmatch(rest):
                raise ConfigError("env: needs the name of an environment variable behind it")
            return cls(variable=rest)
        if not _TOKEN.fullmatch(text):
            raise ConfigError("neither file:PATH, nor env:NAME, nor a token")
        return cls(_value=text)

    def __str__(self) -> str:
        if self.file is not None:
            return f"file:{self.file}"
        if self.variable is not None:
            return f"env:{self.variable}"
        return "a token given directly"

    def read(self) -> str:
        """The token as it is now, without white space around it.

        :raises TokenUnavailable: the file cannot be read, the variable is not set, or what they
            hold is no token.
        """
        if self.file is not None:
            return self._checked(self._read_file(self.file), f"the token file {self.file}")
        if self.variable is not None:
            value = os.environ.get(self.variable)
            if value is None:
                raise TokenUnavailable(f"the environment variable {self.variable} is not set")
            return self._checked(value, f"the environment variable {self.variable}")
        if self._value is None:
            raise TokenUnavailable("no token was given")
        return self._value

    @staticmethod
    def _read_file(path: Path) -> str:
        try:
            with path.open("rb") as file:
                data = file.read(MAX_TOKEN_FILE + 1)
        except OSError as error:
            reason = error.strerror or "input/output error"
            raise TokenUnavailable(f"cannot read the token file {path}: {reason}") from None
        if len(data) > MAX_TOKEN_FILE:
            raise TokenUnavailable(f"the token file {path} is longer than {MAX_TOKEN_FILE} bytes")
        return data.decode("utf-8", "replace")

    @staticmethod
    def _checked(text: str, where: str) -> str:
        token = text.strip()
        if not token:
            raise TokenUnavailable(f"{where} is empty")
        if not _TOKEN.fullmatch(token):
            raise TokenUnavailable(f"{where} holds something that is no token")
        return token
