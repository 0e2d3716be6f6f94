"""edgeml.EdgeImpulseRunner: runs Edge Impulse's .eim models and relays what they say, without Node."""

__version__ = "1.0.0"
