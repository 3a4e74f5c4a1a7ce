"""The global image decoder: from the grid of all tokens, masked and visible, back to pixels."""

from __future__ import annotations

import math

from torch import Tensor, nn

from ..runtime.errors import InvalidValue


class ImageDecoder(nn.Module):
    """1x1 conv, then (deconv x2, BN, ReLU) up to full resolution, then 3x3 conv to 3 channels [ours].

    Dropped after pretraining. Channels halve at each step, not below ``min_width``.

    Args:
        in_channels: Token width D.
        stride: Pixels per token side, a power of two: 16 gives four deconvolutions, 32 five.
        width: Channels after the 1x1 convolution.
        min_width: Least channels of a deconvolution.

    Raises:
        InvalidValue: ``stride`` is not a power of two.
    """

    def __init__(self, in_channels: int, stride: int, width: int = 256, min_width: int = 32) -> None:
        super().__init__()
        steps = int(math.log2(stride))
        if 2**steps != stride:
            raise InvalidValue(
                f"the decoder doubles its map at each step, so stride must be a power of two: {stride}"
            )
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 1)]
        for _ in range(steps):
            narrower = max(width // 2, min_width)
            layers += [
                nn.ConvTranspose2d(width, narrower, kernel_size=2, stride=2, bias=False),
                nn.BatchNorm2d(narrower),
                nn.ReLU(inplace=True),
            ]
            width = narrower
        layers.append(nn.Conv2d(width, 3, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, grid: Tensor) -> Tensor:
        """Tokens [B, D, h, w] to an image [B, 3, h * stride, w * stride] in normalised pixel values."""
        return self.layers(grid)
