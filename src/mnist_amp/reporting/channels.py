"""The layout of images: plots and Pillow take the channels last. Without torch."""

import numpy as np
from numpy.typing import NDArray


def channels_last(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image (H, W), (1, H, W) or (3, H, W) as (H, W), if it is grey, or (H, W, 3).

    >>> [channels_last(np.zeros(shape, np.uint8)).shape for shape in ((28, 28), (1, 28, 28), (3, 32, 48))]
    [(28, 28), (28, 28), (32, 48, 3)]
    """
    if image.ndim == 2:
        return image
    return image[0] if image.shape[0] == 1 else np.moveaxis(image, 0, -1)
