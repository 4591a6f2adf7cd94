"""Values to bytes and back, exactly."""

from petal.checkpoints.codec.coding import Codec
from petal.checkpoints.codec.errors import RawValue, ValueNotSavableError

__all__ = ["Codec", "RawValue", "ValueNotSavableError"]
