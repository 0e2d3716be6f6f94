"""edgeml.Inferencer: pipelines from a source through a model to sinks, any number side by side."""

__version__ = "1.1.0"
