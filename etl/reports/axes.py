"""Axes with round ticks, and numbers as text."""
import math
from numbers import Integral
from typing import List, NamedTuple, Optional, Sequence

TINY, HUGE = 1e-100, 1e100      # smaller values count as 0, larger ones are not drawn

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


class Axis(NamedTuple):
    """A range of values and its ticks."""
    low: float
    high: float
    ticks: List[float]
    labels: List[str]
    log: bool

    def place(self, value: float) -> float:
        """The position of a value: 0 at the low end, 1 at the high end."""
        if self.log:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def axis_over(values: Sequence[float], log: bool = False, tight: bool = False, whole: bool = False) -> Axis:
    """An axis that contains all values, with some room if they are all the same.

    Args:
      values: smaller than HUGE in size, above TINY if `log`; may be empty.
      tight: the axis ends at the lowest and highest value, else at ticks.
      whole: no ticks between integers.
    """
    low, high = (min(values), max(values)) if values else (1.0, 2.0)
    if high - low <= max(1e-9 * max(abs(low), abs(high)), TINY):
        around = 0.1 * abs(low)
        low, high = (low - around, high + around) if abs(low) > TINY else (0.0, 1.0)
    marks = log_ticks(low, high) if log else ticks(low, high)
    if tight:
        marks = [mark for mark in marks if low <= mark <= high]
    else:
        low, high = marks[0], marks[-1]
    if whole:
        marks = [mark for mark in marks if mark == int(mark)]
    wide = log and high / low >= 10
    labels = [tick_labels([mark])[0] for mark in marks] if wide else tick_labels(marks)
    return Axis(low, high, marks, labels, log)


def ticks(low: float, high: float) -> List[float]:
    """Three to eight neighbouring multiples of 1, 2 or 5 times a power of ten that enclose low < high."""
    rough = (high - low) / 6
    exponent = math.floor(math.log10(rough))
    digit = next(digit for digit in (1, 2, 5, 10, 20) if digit * 10.0 ** exponent >= rough * (1 - 1e-9))
    step = digit * 10.0 ** exponent
    first, last = math.floor(low / step + 1e-6), math.ceil(high / step - 1e-6)
    return [float("%de%d" % (number * digit, exponent))
            for number in range(first, last + 1)]    # 0.3, not 3 * 0.1


def log_ticks(low: float, high: float) -> List[float]:
    """Ticks for a logarithmic axis that enclose 0 < low < high: 1, 2, 5 times powers of ten, or only
    powers of ten."""
    if high / low < 3:                         # too narrow for 1, 2, 5; and no multiple below `low` is 0
        return ticks(low, high)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    digits = (1, 2, 5) if last - first <= 2 else (1,)
    stride = math.ceil((last - first) / 6)
    marks = [float("%de%d" % (digit, exponent))
             for exponent in range(first, last + stride, stride) for digit in digits]
    below = [mark for mark in marks if mark <= low * (1 + 1e-9)]
    above = [mark for mark in marks if mark >= high * (1 - 1e-9)]
    return [mark for mark in marks if below[-1] <= mark <= above[0]]


def tick_labels(marks: Sequence[float]) -> List[str]:
    """The ticks of one axis in one unit with the same decimals: 0, 0.5M, 1.0M."""
    top = max((abs(mark) for mark in marks), default=0.0)
    unit, suffix = next((pair for pair in ((1e9, "G"), (1e6, "M"), (1e3, "k")) if top >= pair[0]), (1.0, ""))
    if top >= 1e12 or 0 < top < 1e-3:
        exponent = math.floor(math.log10(top) + 1e-9)
        unit, suffix = float("1e%d" % exponent), _power_of_ten(exponent)
    places = _decimals([mark / unit for mark in marks], 9)
    return [("%.*f%s" % (places, mark / unit, suffix)).replace("-", "−") if mark else "0" for mark in marks]


def numbers_as_text(values: Sequence[Optional[float]]) -> List[str]:
    """The numbers of one column: integers in full, others with the decimals that show four digits of the
    largest.

    If that would hide the smallest, each number has four significant digits. None becomes "".
    """
    numbers = [value for value in values if value is not None]
    if all(isinstance(number, Integral) for number in numbers):
        return ["" if value is None else "{:,}".format(int(value)) for value in values]
    sizes = [abs(float(number)) for number in numbers if math.isfinite(number) and abs(number) > TINY]
    small, large = min(sizes, default=1.0), max(sizes, default=1.0)
    if len(numbers) > 1 and small < 1e-3 * large:
        return ["" if value is None else number_as_text(value) for value in values]
    unit, suffix = 1.0, ""
    if large < 1e-3 or large >= 1e15:
        exponent = math.floor(math.log10(large))
        unit, suffix = 10.0 ** exponent, _power_of_ten(exponent)
    scaled = [float(number) / unit for number in numbers if math.isfinite(number)]
    places = _decimals(scaled, max(0, 3 - math.floor(math.log10(large / unit))))
    return ["" if value is None else "{:,.{}f}{}".format(value / unit, places, suffix) if math.isfinite(value)
            else str(float(value)) for value in values]


def number_as_text(value: float) -> str:
    """A single number: 12,345 or 0.1235 or 1.2×10⁻⁵."""
    return numbers_as_text([value])[0]


def _power_of_ten(exponent: int) -> str:
    return "×10" + str(exponent).translate(_SUPERSCRIPT)


def _decimals(values: Sequence[float], most: int) -> int:
    """The fewest decimals that show all values as well as `most` decimals do."""
    return next(places for places in range(most + 1)
                if places == most or all(round(value, places) == round(value, most) for value in values))
