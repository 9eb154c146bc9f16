"""ViT, a small vision transformer."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mnist_amp.number_types import PositiveInt32


class ViT(nn.Module):
    """A vision transformer: patches as tokens, learned positions, pre-norm blocks of attention, mean over the tokens.

    Its products of matrices are many and small, and between them lie layer normalisation and softmax, which autocast
    computes in float32. So it tells how much of a gain such casts take back.

    Args:
        patch_size: height and width of a patch in pixels; it must divide those of the image.
        dim: width of a token, a multiple of `heads`.
        depth: number of blocks.
        heads: of the attention.
        num_classes: number of classes.
        image_shape: channels, height and width of the images.

    Raises:
        ValueError: patch_size does not divide the image, or heads does not divide dim.

    Examples:
        >>> ViT(depth=1)(torch.zeros(5, 1, 28, 28)).shape
        torch.Size([5, 10])
    """

    def __init__(
        self,
        patch_size: PositiveInt32 = 7,
        dim: PositiveInt32 = 64,
        depth: PositiveInt32 = 4,
        heads: PositiveInt32 = 4,
        num_classes: int = 10,
        image_shape: tuple[int, int, int] = (1, 28, 28),
    ) -> None:
        super().__init__()
        channels, height, width = image_shape
        if patch_size < 1 or height % patch_size or width % patch_size:
            raise ValueError(f"patch_size is {patch_size}, which does not divide images of {height} x {width}")
        if heads < 1 or dim % heads:
            raise ValueError(f"heads is {heads}, which does not divide dim, {dim}")
        tokens = (height // patch_size) * (width // patch_size)
        self.patches = nn.Conv2d(channels, dim, patch_size, stride=patch_size)
        self.positions = nn.Parameter(torch.randn(1, tokens, dim) * 0.02)
        self.blocks = nn.Sequential(*(Block(dim, heads) for _ in range(depth)))
        self.norm = nn.LayerNorm(dim)
        self.classifier = nn.Linear(dim, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, num_classes) of normalised images (N, C, H, W)."""
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        logits: Tensor = self.classifier(self.norm(self.blocks(tokens)).mean(dim=1))
        return logits


class Block(nn.Module):
    """Attention and a two-layer perceptron, each after layer normalisation, and each added to its input (N, T, dim)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.qkv, self.project = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self._attend(self.norm1(tokens))
        result: Tensor = tokens + self.mlp(self.norm2(tokens))
        return result

    def _attend(self, tokens: Tensor) -> Tensor:
        query, key, value = self.qkv(tokens).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(query, key, value)  # (N, heads, T, dim / heads)
        result: Tensor = self.project(attended.transpose(1, 2).flatten(2))
        return result
