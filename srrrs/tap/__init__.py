"""What ``twistd`` and ``srrrs-tunnel`` share: the Options classes and the making of services."""
