"""edgeml.SampleRequester: asks the inferencer to classify pictures and logs what it answers."""

__version__ = "1.1.0"
