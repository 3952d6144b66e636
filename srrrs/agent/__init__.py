"""The agent: dials a relay and serves what visitors come for."""
