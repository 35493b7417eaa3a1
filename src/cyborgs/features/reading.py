"""One photo from its file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cyborgs.data.decode import decode
from cyborgs.errors import UserError


def read_photo(path: Path) -> NDArray[np.uint8]:
    """Uint8 (H, W, 3), as displayed.

    Raises:
        UserError: the file cannot be read.
        UnreadableImage: it is no photo, or damaged.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from error
    return decode(data, str(path))
