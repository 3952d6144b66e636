"""What can be wrong with a configuration."""

from __future__ import annotations


class ConfigError(Exception):
    """An option, variable or key cannot be used: one line that names it, without any secret."""


class TokenUnavailable(Exception):
    """The token cannot be had now: one line that names the file or the variable."""
