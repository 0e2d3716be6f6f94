"""edgeml.SampleRequester: asks the inferencer to classify pictures and logs what it answers."""

__version__ = "1.0.0"
