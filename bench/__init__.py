"""Measurements of srrrs beside other tunnels, on loopback: ``python -m bench --help``."""
