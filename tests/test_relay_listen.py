"""What is wrong with a ``--listen`` string is told before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest
from twisted.internet.testing import MemoryReactorClock

from srrrs.config import ConfigError, RelayConfig
from srrrs.relay.service import make_relay


@pytest.mark.parametrize(
    ("description", "word"),
    [
        ("nonsense:1", "nonsense"),
        ("tcp:http", "http"),
        ("tcp:1:colour=red", "colour"),
        ("ssl:443:privateKey=/nowhere", "/nowhere"),
        ("systemd:domain=INET:index=0", "no such socket was passed"),
        ("systemd:domain=INET:name=public", "no such socket was passed"),
    ],
)
def test_an_endpoint_string_that_means_nothing(description: str, word: str, tmp_path: Path) -> None:
    """One line that names the option and the string; the data folder is not touched."""
    data = tmp_path / "data"
    with pytest.raises(ConfigError) as caught:
        make_relay(MemoryReactorClock(), RelayConfig(data_dir=data, listen=(description,)))
    line = str(caught.value)
    assert line.startswith(f"--listen: {description}: ")
    assert word in line
    assert not data.exists()
