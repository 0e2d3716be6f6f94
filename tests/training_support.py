"""The environment that training runs in: PyTorch, scikit-learn and Jupyter are too large for every machine's tests."""

import pytest

from support import ROOT

PYTHON = ROOT / ".venv-training" / "bin" / "python"
needs_training = pytest.mark.skipif(
    not (ROOT / ".venv-training" / "stamp").exists(), reason="needs .venv-training: ./scripts/train --setup"
)
