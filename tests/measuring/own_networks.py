"""Networks and data of the modules in `own_modules`. No Lightning here, for the hand-written loops of a benchmark."""

import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

TOKENS = 64
LENGTH = 32


def cnn(width: int) -> nn.Module:
    """Return a classifier of images (N, 3, 16, 16) in four classes."""
    return nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1, stride=2),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.1),
        nn.Linear(8 * width, 4),
    )


class LanguageModel(nn.Module):
    """A small transformer: tokens (N, length) to logits (N, length, TOKENS) of the token after each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(TOKENS, width)
        self.places = nn.Parameter(torch.zeros(LENGTH, width))
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, TOKENS)

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.layers(self.embedding(tokens) + self.places[:length], mask=mask, is_causal=True)
        logits: Tensor = self.head(hidden)
        return logits


def encoder(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 8))


def decoder(width: int) -> nn.Module:
    return nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 64))


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images of noise around a shade that tells the class. Each may take a while to get."""

    def __init__(self, seed: int, size: int, seconds: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.labels = torch.randint(0, 4, (size,), generator=generator)
        self.images = torch.randn(size, 3, 16, 16, generator=generator) + self.labels[:, None, None, None] - 1.5
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if self.seconds:
            time.sleep(self.seconds)
        return self.images[index], self.labels[index]


class Sentences(Dataset[dict[str, Tensor]]):
    """Tokens, each of which is the one before plus a step that the first two tell."""

    def __init__(self, seed: int, size: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        start, step = torch.randint(0, TOKENS, (2, size, 1), generator=generator)
        self.tokens = (start + step * torch.arange(LENGTH + 1)) % TOKENS

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"tokens": self.tokens[index, :-1], "targets": self.tokens[index, 1:]}


def vectors(seed: int, size: int) -> TensorDataset:
    """Return vectors (size, 64) that eight numbers determine."""
    mixing = torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    return TensorDataset(torch.randn(size, 8, generator=torch.Generator().manual_seed(seed)) @ mixing)


def loader(data: Any, batch_size: int, num_workers: int, shuffle: bool) -> DataLoader[Any]:
    return DataLoader(data, batch_size, shuffle=shuffle, num_workers=num_workers, persistent_workers=num_workers > 0)


def warm_up(step: int) -> float:
    """Return the factor of the learning rate at a step."""
    return min((step + 1) / 20, 1.0)
