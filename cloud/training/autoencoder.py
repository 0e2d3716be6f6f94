"""The network of the wind turbine model, and its export to ONNX."""

import io
import warnings

import torch
from torch import Tensor, nn

CHANNELS = 6
SIDE = 10  # a window of 100 readings, ten by ten
OPSET = 17


class Autoencoder(nn.Module):
    """Convolutional autoencoder 6 -> 32 -> 64 -> 128 -> 64 -> 32 -> 6 on windows [n, 6, 10, 10].

    The 128 channels meet in a single cell, so a window must be told in 128 numbers. `noise` blurs them while
    training, which leaves room for little more than how the signals usually go together.
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
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(128, 64, 3),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(32, CHANNELS, 2, stride=2),
        )

    def forward(self, windows: Tensor) -> Tensor:
        code: Tensor = torch.tanh(self.encoder(windows))
        if self.training:
            code = code + self.noise * torch.randn_like(code)
        reconstruction: Tensor = self.decoder(code)
        return reconstruction


def to_onnx(model: Autoencoder) -> bytes:
    """The model as ONNX: `input` [batch, 6, 10, 10] -> `reconstruction`, the same shape."""
    file = io.BytesIO()
    example = torch.zeros(1, CHANNELS, SIDE, SIDE)
    dynamic = {"input": {0: "batch"}, "reconstruction": {0: "batch"}}
    with warnings.catch_warnings():
        # The exporter that replaces this one needs two more packages and gives the same graph.
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            model.eval(),
            (example,),
            file,
            input_names=["input"],
            output_names=["reconstruction"],
            dynamic_axes=dynamic,
            opset_version=OPSET,
            dynamo=False,
        )
    return file.getvalue()
