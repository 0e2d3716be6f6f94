"""Stand-ins for what a device is connected to: models, microcontrollers, services."""
