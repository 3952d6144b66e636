"""srrrs: a self-hosted reverse tunnel."""

from srrrs._version import __version__

__all__ = ["__version__"]
