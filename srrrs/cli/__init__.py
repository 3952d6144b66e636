"""The ``srrrs-tunnel`` command."""
