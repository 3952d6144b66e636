"""``python -m srrrs.cli``: the same as ``srrrs-tunnel``."""

from srrrs.cli.main import main

main()
