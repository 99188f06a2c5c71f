"""The version of chainserve."""

__version__ = "0.1.0"
