"""The global image decoder: from the grid of all tokens, masked and visible, back to pixels."""

from __future__ import annotations

from torch import Tensor, nn

from ..runtime.errors import InvalidValue


class ImageDecoder(nn.Module):
    """1x1 conv, then (deconv x2, BN, ReLU) up to full resolution, then 3x3 conv to 3 channels [ours].

    Dropped after pretraining. Channels halve at each step, not below ``min_width``. Where the stride is not a power of
    two, the deconvolutions end at the power below it and the map is enlarged bilinearly to full resolution before the
    last convolution [ours]: patches of 14 pixels take three deconvolutions, then a factor of 14 / 8.

    Args:
        in_channels: Token width D.
        stride: Pixels per token side: 16 gives four deconvolutions, 32 five, 14 three.
        width: Channels after the 1x1 convolution.
        min_width: Least channels of a deconvolution.

    Raises:
        InvalidValue: ``stride`` is not positive.
    """

    def __init__(self, in_channels: int, stride: int, width: int = 256, min_width: int = 32) -> None:
        super().__init__()
        if stride < 1:
            raise InvalidValue(f"the decoder's stride must be positive, got {stride}")
        steps = stride.bit_length() - 1
        layers: list[nn.Module] = [nn.Conv2d(in_channels, width, 1)]
        for _ in range(steps):
            narrower = max(width // 2, min_width)
            layers += [
                nn.ConvTranspose2d(width, narrower, kernel_size=2, stride=2, bias=False),
                nn.BatchNorm2d(narrower),
                nn.ReLU(inplace=True),
            ]
            width = narrower
        if 2**steps != stride:
            layers.append(nn.Upsample(scale_factor=stride / 2**steps, mode="bilinear", align_corners=False))
        layers.append(nn.Conv2d(width, 3, 3, padding=1))
        self.layers = nn.Sequential(*layers)

    def forward(self, grid: Tensor) -> Tensor:
        """Tokens [B, D, h, w] to an image [B, 3, h * stride, w * stride] in normalised pixel values."""
        return self.layers(grid)
