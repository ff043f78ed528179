"""A small backbone from outside ucdir, for tests that start processes: importing torchvision takes each many seconds."""

from torch import Tensor, nn


class TinyNetwork(nn.Module):
    """Two convolutions with batch norm: (N, 3, H, W) -> (N, 32)."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32), nn.ReLU()
        )

    def forward(self, images: Tensor) -> Tensor:
        """Features of images."""
        features: Tensor = self.layers(images).mean(dim=(2, 3))
        return features


def tiny(pretrained: bool) -> nn.Module:
    """A network that starts from random numbers."""
    return TinyNetwork()
