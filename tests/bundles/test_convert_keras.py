import io
import json

import h5py
import pytest

from bundles.convert_keras import convert


def test_a_layer_that_is_not_known_is_named() -> None:
    layers = [
        {"class_name": "InputLayer", "name": "in", "config": {"batch_input_shape": [None, 8, 8, 1]}},
        {"class_name": "Lambda", "name": "odd", "config": {}, "inbound_nodes": [[["in", 0, 0, {}]]]},
    ]
    file = io.BytesIO()
    with h5py.File(file, "w") as writer:
        writer.attrs["model_config"] = json.dumps({"config": {"layers": layers, "output_layers": [["odd", 0, 0]]}})
        writer.create_group("model_weights")
    with pytest.raises(NotImplementedError, match=r"Lambda \(odd\)"):
        convert(file.getvalue(), "probabilities")
