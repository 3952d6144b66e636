"""Build script; the metadata stand in setup.cfg."""

from setuptools import setup

setup()
