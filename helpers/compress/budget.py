"""What a file may cost, in words or in numbers."""

import re
from dataclasses import dataclass

from helpers.base.errors import InputError


@dataclass(frozen=True)
class Budget:
    """What a file may cost: so many bytes; a share of the bytes of the int8 file; or so many points that the score may fall
    against float32, for which the smallest file is wanted. One of the three."""

    bytes: int | None = None
    share: float | None = None
    points: float | None = None

    @classmethod
    def read(cls, text):
        """Of "60%", "450000", "450kB", "0.4MB" or "1 point". Raises InputError."""
        found = re.fullmatch(r"\s*(\d+\.?\d*|\.\d+)\s*([a-zA-Z%]*)\s*", text)
        number, unit = found.groups() if found else ("0", "")
        units = {"%": 0, "": 1, "B": 1, "bytes": 1, "kB": 1000, "MB": 1_000_000, "point": -1, "points": -1}
        least = 1 if units.get(unit) == 1 else 1e-9  # bytes come whole
        if unit not in units or not (float(number) >= least or units[unit] < 0):
            raise InputError(f"budget={text!r} must read like 60% (of the int8 file), 450000, 450kB, 0.4MB, or 1point.")
        if units[unit] < 0:
            return cls(points=float(number))
        return cls(bytes=round(float(number) * units[unit])) if units[unit] else cls(share=float(number) / 100)
