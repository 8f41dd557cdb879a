"""What the examples with figures share."""

from __future__ import annotations

import argparse
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # files, no windows

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure


def add_option(parser: argparse.ArgumentParser) -> None:
    """The option that names the folder for figures."""
    parser.add_argument("--plots", type=Path, help="write the figure into this folder")


def panels(count: int) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side."""
    figure, axes = plt.subplots(1, count, figsize=(4.5 * count, 3.6), squeeze=False)
    return figure, list(axes[0])


def save(figure: Figure, folder: Path, name: str) -> Path:
    """Write the figure as PNG, close it, and give back where it is."""
    folder.mkdir(parents=True, exist_ok=True)
    figure.tight_layout()
    path = folder / f"{name}.png"
    figure.savefig(path, dpi=120)
    plt.close(figure)
    return path
