"""The one place that turns options, environment variables, a TOML file and defaults into what a
relay and an agent are told."""

from __future__ import annotations

from srrrs.config.build import agent_config, data_dir, default_data_dir, relay_config
from srrrs.config.errors import ConfigError, TokenUnavailable
from srrrs.config.model import (
    AgentConfig,
    AgentLimits,
    Kind,
    LogLevel,
    RelayConfig,
    RelayLimits,
    ServiceSpec,
)
from srrrs.config.token import TokenSource

__all__ = [
    "AgentConfig",
    "AgentLimits",
    "ConfigError",
    "Kind",
    "LogLevel",
    "RelayConfig",
    "RelayLimits",
    "ServiceSpec",
    "TokenSource",
    "TokenUnavailable",
    "agent_config",
    "data_dir",
    "default_data_dir",
    "relay_config",
]
