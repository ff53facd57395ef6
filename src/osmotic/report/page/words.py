"""Numbers as a person reads them."""

from __future__ import annotations

import math
from datetime import UTC, datetime


def number(value: float | None, digits: int = 4) -> str:
    """Four significant digits at most, thousands apart, a dash for nothing: "0.2778", "12,350", "1.4e-09"."""
    if value is None or not math.isfinite(value):
        return "\u2013"
    if value == int(value) and abs(value) < 1e15:
        return f"{int(value):,}"
    size = abs(value)
    if size < 1e-4 or size >= 1e15:
        return f"{value:.{digits - 1}g}"
    decimals = max(0, digits - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{decimals}f}"
    return text.rstrip("0").rstrip(".") if decimals else text


def rounded(value: float, low: float | None, high: float | None) -> str:
    """A value to the digits that its interval supports: two of half the interval's width; four where none is known."""
    if low is None or high is None or not high > low:
        return number(value)
    decimals = 1 - math.floor(math.log10((high - low) / 2))
    return f"{value:,.{decimals}f}" if 0 <= decimals < 10 else number(value)


def interval(low: float | None, high: float | None) -> str:
    """ "0.91 to 0.95", nothing where an end is not known."""
    if low is None or high is None:
        return ""
    return f"{rounded(low, low, high)} to {rounded(high, low, high)}"


def date(text: str) -> str:
    """An ISO 8601 time as "2026-01-05 10:11 UTC"; another text as it is."""
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        return text
    return f"{when.astimezone(UTC) if when.tzinfo else when:%Y-%m-%d %H:%M} UTC"


def duration(seconds: float) -> str:
    """Seconds in words: "2 h 5 min", "3 min", "40 s"."""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{minutes} min" if seconds >= 90 else f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"


def size(count: int) -> str:
    """Bytes in words: "820 B", "12 KB", "3.4 MB"."""
    for unit, scale in (("MB", 10**6), ("KB", 10**3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count} B"
