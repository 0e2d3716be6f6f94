"""Microcontrollers on serial ports: their text becomes inference results and records."""

__version__ = "1.1.0"
