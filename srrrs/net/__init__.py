"""Thin Twisted adapters over :mod:`srrrs.protocol`."""
