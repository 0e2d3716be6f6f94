"""The network of the wind turbine model, and its export to ONNX."""

import io
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

CHANNELS = 6
SIDE = 10  # a window of 100 readings, ten by ten
OPSET = 17


class Autoencoder(nn.Module):  # type: ignore[misc]
    """Convolutional autoencoder 6 -> 32 -> 64 -> 128 -> 64 -> 32 -> 6 on windows [n, 6, 10, 10].

    The 128 channels meet in a single cell: a window must be told in 128 numbers. `noise` blurs them while training,
    which leaves room for little more than how the signals usually go together.
    """

    def __init__(self, noise: float = 0.0) -> None:
        super().__init__()
        self.noise = noise
        self.encoder = nn.Sequential(
            nn.Conv2d(CHANNELS, 32, 2, stride=2),  # 5 x 5
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, stride=2, padding=1),  # 3 x 3
            nn.ReLU(),
            nn.Conv2d(64, 128, 3),  # 1 x 1
            nn.Tanh(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, CHANNELS, 2, stride=2),
        )

    def forward(self, windows: Tensor) -> Tensor:
        code = self.encoder(windows)
        if self.training:
            code = code + self.noise * torch.randn_like(code)
        return self.decoder(code)


def load(path: Path) -> Autoencoder:
    """The trained model from a file of weights; nothing but tensors is unpickled."""
    model = Autoencoder()
    model.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    model.eval()
    return model


def to_onnx(model: Autoencoder) -> bytes:
    """The model as ONNX: `input` [batch, 6, 10, 10] -> `reconstruction`, the same shape."""
    file = io.BytesIO()
    with warnings.catch_warnings():
        # The exporter that replaces this one needs one package more and makes the same graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model.eval(),
            (torch.zeros(1, CHANNELS, SIDE, SIDE),),
            file,
            input_names=["input"],
            output_names=["reconstruction"],
            dynamic_axes={"input": {0: "batch"}, "reconstruction": {0: "batch"}},
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()
