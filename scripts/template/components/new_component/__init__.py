"""edgeml.NewComponent: says something on a local topic every few seconds."""

__version__ = "1.0.0"
