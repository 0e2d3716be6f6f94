"""The shared library of the suite: what every component needs, and nothing that only one of them does.

The build copies this package into each artifact, so a component is self-contained and versioned on its own.
Nothing here imports a component, and importing `edgeml` itself loads nothing heavy.
"""
