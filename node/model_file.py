"""What peers leave to be used: a model as a safetensors file of named tensors."""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save


def model_file(vector: NDArray[np.float32], layout: Iterable[tuple[str, tuple[int, ...]]]) -> bytes:
    """The file of a vector [D]; `layout` are names and shapes in the vector's order, as the trainer's `Ready` gives them."""
    tensors, offset = {}, 0
    for name, shape in layout:
        size = int(np.prod(shape, dtype=np.int64))
        tensors[name] = np.ascontiguousarray(vector[offset : offset + size].reshape(shape))
        offset += size
    return save(tensors)
