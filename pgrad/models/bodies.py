"""Bodies: a multilayer perceptron and convolutions, with orthogonal weights from an explicit generator."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Generator, Tensor, nn

Layer = TypeVar("Layer", nn.Linear, nn.Conv2d)

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


def rounded(layers: Callable[[Tensor], Tensor], x: Tensor, half: bool) -> Tensor:
    """What layers make of x; where `half`, with matrices multiplied in bfloat16, as float32 again."""
    if not half:
        return layers(x)
    with torch.autocast(x.device.type, torch.bfloat16):
        y = layers(x)
    return y.float()


class Body(nn.Sequential):
    """Layers of which `half` multiplies matrices in bfloat16; weights, input and output are float32.

    Sums are float32 in either case, and so is what comes after: heads, log-probabilities and losses.
    """

    def __init__(self, *layers: nn.Module, half: bool = False) -> None:
        super().__init__(*layers)
        self.in_half = half

    def forward(self, x: Tensor) -> Tensor:
        """One layer after the other."""
        return rounded(super().forward, x, self.in_half)


def linear(n_in: int, n_out: int, gain: float, generator: Generator) -> nn.Linear:
    """A linear layer with an orthogonal weight of the given gain and zero bias (Saxe et al. 2014)."""
    return _orthogonal(nn.Linear(n_in, n_out, device="meta"), gain, generator)


def conv(n_in: int, n_out: int, kernel: int, stride: int, padding: int, generator: Generator) -> nn.Conv2d:
    """A convolution with an orthogonal weight of gain √2 and zero bias."""
    layer = nn.Conv2d(n_in, n_out, kernel, stride=stride, padding=padding, device="meta")
    return _orthogonal(layer, math.sqrt(2), generator)


def mlp(
    n_in: int, net_arch: Sequence[int], activation: str, generator: Generator, half: bool = False
) -> tuple[Body, int]:
    """Hidden layers of the given widths, each followed by the activation; returns them and the last width."""
    layers: list[nn.Module] = []
    for width in net_arch:
        layers += [linear(n_in, width, math.sqrt(2), generator), ACTIVATIONS[activation]()]
        n_in = width
    return Body(*layers, half=half), n_in


class ImageBody(nn.Module):
    """Convolutions for uint8 images: Mnih et al. 2015 from 36×36 pixels on, three 3×3 layers below that.

    Takes [..., H, W, C] or [..., C, H, W] (the smaller of the two outer axes is the channel), scales by 1/255
    and returns [..., 512].
    """

    size = 512

    def __init__(self, shape: tuple[int, int, int], generator: Generator, half: bool = False) -> None:
        super().__init__()
        self.channels_last = shape[2] <= shape[0]
        channels, height, width = (shape[2], *shape[:2]) if self.channels_last else shape
        layers = ((32, 8, 4, 0), (64, 4, 2, 0), (64, 3, 1, 0))
        if min(height, width) < 36:
            layers = ((32, 3, 1, 1), (64, 3, 2, 1), (64, 3, 1, 1))
        parts: list[nn.Module] = []
        for n_out, kernel, stride, padding in layers:
            parts += [conv(channels, n_out, kernel, stride, padding, generator), nn.ReLU()]
            channels = n_out
            height = (height + 2 * padding - kernel) // stride + 1
            width = (width + 2 * padding - kernel) // stride + 1
        flat = channels * height * width
        parts += [nn.Flatten(), linear(flat, self.size, math.sqrt(2), generator), nn.ReLU()]
        self.layers = Body(*parts, half=half)

    def forward(self, image: Tensor) -> Tensor:
        """Features [..., 512] of images [..., H, W, C] or [..., C, H, W]."""
        lead = image.shape[:-3]
        x = image.reshape(-1, *image.shape[-3:])
        if self.channels_last:
            x = x.movedim(-1, -3)
        # With channels innermost a processor's float32 convolutions take a quarter less time.
        innermost = x.device.type == "cpu" or self.channels_last
        layout = torch.channels_last if innermost else torch.contiguous_format
        x = x.to(torch.float32, memory_format=layout).div_(255.0)
        features: Tensor = self.layers(x)
        return features.reshape(*lead, self.size)


def _orthogonal(layer: Layer, gain: float, generator: Generator) -> Layer:
    """Fill a layer that was made without memory, and so without drawing from the global generator."""
    layer.weight = nn.Parameter(torch.empty(layer.weight.shape))
    nn.init.orthogonal_(layer.weight, gain, generator=generator)
    layer.bias = nn.Parameter(torch.zeros(layer.weight.shape[0]))
    return layer
