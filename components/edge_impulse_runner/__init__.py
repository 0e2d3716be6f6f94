"""edgeml.EdgeImpulseRunner: runs Edge Impulse's .eim models and relays what they say, without Node."""

__version__ = "1.1.0"
