"""The loaders of other libraries, as the last source: each downloads from the original host into a folder."""

from __future__ import annotations

from pathlib import Path

from zoo.torchvision_shim import install


def fashion_mnist(folder: Path) -> None:
    """torchvision's FashionMNIST: `FashionMNIST/raw/*-ubyte`."""
    install()
    from torchvision.datasets import FashionMNIST

    FashionMNIST(folder, download=True)


def mnist(folder: Path) -> None:
    """torchvision's MNIST: `MNIST/raw/*-ubyte`."""
    install()
    from torchvision.datasets import MNIST

    MNIST(folder, download=True)
