"""srrrs: a self-hosted reverse tunnel."""

import os

from srrrs._version import __version__

if os.environ.get("SRRRS_PURE", "0") not in ("", "0"):
    # Before any module that may be compiled is looked for.
    from srrrs import _form

    _form.prefer_sources()

__all__ = ["__version__"]
