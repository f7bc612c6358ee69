"""Contact sheets."""
import numpy as np
from PIL import Image


def save(images, columns, path, scale=2):
    """Images uint8 [n, h, w, 3] side by side."""
    n, h, w, _ = images.shape
    rows = -(-n // columns)
    full = np.full((rows * columns, h + 2, w + 2, 3), 128, np.uint8)
    full[:n, 1:-1, 1:-1] = images
    grid = full.reshape(rows, columns, h + 2, w + 2, 3).transpose(0, 2, 1, 3, 4)
    picture = Image.fromarray(grid.reshape(rows * (h + 2), columns * (w + 2), 3))
    picture.resize((picture.width * scale, picture.height * scale), Image.NEAREST).save(path)
