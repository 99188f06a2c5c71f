"""lz-string's `compressToEncodedURIComponent`, in which a config travels within a URL.

The format: numbers, each with its lowest bit first, six bits to a character. A number is the code
of what comes next, written with as many bits as the largest code that may stand there.

====  ==============================================================================
code  stands for
====  ==============================================================================
0     a UTF-16 code unit not seen before, in the 8 bits that follow
1     the same, in the 16 bits that follow
2     the end
3 …   a phrase: a new unit, or what the code before stood for and the unit after it,
      in the order in which a reader learns of them
====  ==============================================================================
"""

from array import array

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+-"
_BITS_OF_A_CHARACTER = 6
_END = 2
_FIRST_PHRASE = 3
_BITS_OF_A_UNIT = {0: 8, 1: 16}
_BYTES_OF_A_UNIT = 2


def _reversed(value: int) -> int:
    """Return the six bits of a character in the order in which they are read."""
    return int(f"{value:06b}"[::-1], 2)


_CHARACTERS = [_ALPHABET[_reversed(bits)] for bits in range(len(_ALPHABET))]
# Some URL decoders turn "+" into a space; "$" is a padding that lz-string reads as no bits set.
_BITS = {character: bits for bits, character in enumerate(_CHARACTERS)}
_BITS |= {" ": _BITS["+"], "$": 0}


def decompress(text: str, *, max_bytes: int) -> str:
    """Return the text that was compressed, which ends where lz-string ends it.

    Time and memory grow with what is returned, at most with `max_bytes`. As with lz-string, what
    follows the end is not looked at, and a longer way to write a text than `compress` would choose
    is read as well.

    Args:
        text: What `compress` returned, or lz-string's `compressToEncodedURIComponent`.
        max_bytes: The most that the result may have in UTF-8.

    Raises:
        ValueError: The text is not compressed, it is cut off, or the result is larger than
            `max_bytes` or no Unicode text.
    """
    numbers = _NumberReader(text)
    decoded = _Decoded(max_bytes)
    while (code := numbers.read(decoded.code_bits)) != _END:
        if code in _BITS_OF_A_UNIT:
            decoded.add_unit(numbers.read(_BITS_OF_A_UNIT[code]))
        else:
            decoded.add_phrase(code)
    return decoded.text()


def compress(text: str) -> str:
    """Return a text as lz-string's `compressToEncodedURIComponent` compresses it.

    Raises:
        ValueError: The text has lone surrogates.
    """
    writer = _PhraseWriter()
    codes: dict[tuple[int, int], int] = {}
    phrase = 0
    for unit in _units(text):
        if (0, unit) not in codes:
            codes[0, unit] = len(codes) + _FIRST_PHRASE
            writer.introduce(codes[0, unit], unit)
        if (phrase, unit) in codes:
            phrase = codes[phrase, unit]
            continue
        writer.write(phrase)
        codes[phrase, unit] = len(codes) + _FIRST_PHRASE
        phrase = codes[0, unit]
    if phrase:
        writer.write(phrase)
    return writer.end()


def _units(text: str) -> list[int]:
    """Return the UTF-16 code units of a text."""
    data = text.encode("utf-16-le")
    return [low | high << 8 for low, high in zip(data[::2], data[1::2], strict=True)]


class _NumberReader:
    """Reads the numbers of a compressed text."""

    def __init__(self, text: str) -> None:
        self._characters = iter(text)
        self._bits = 0
        self._held = 0

    def read(self, width: int) -> int:
        """Return the next number, of `width` bits."""
        while self._held < width:
            self._bits |= self._next_bits() << self._held
            self._held += _BITS_OF_A_CHARACTER
        number = self._bits & ((1 << width) - 1)
        self._bits >>= width
        self._held -= width
        return number

    def _next_bits(self) -> int:
        character = next(self._characters, "")
        if not character:
            raise ValueError("The compressed text is cut off.")
        if character not in _BITS:
            raise ValueError(f"A compressed text has no {character!r}.")
        return _BITS[character]


class _Decoded:
    """The UTF-16 code units read so far, and the phrases that codes stand for.

    A phrase is kept as the place where it stands in the text: written out, phrases that each
    lengthen the one before would take the square of the text's size.
    """

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._units = bytearray()
        self._starts = array("Q", bytes(8 * _FIRST_PHRASE))
        self._ends = array("Q", bytes(8 * _FIRST_PHRASE))
        self._previous = 0

    @property
    def code_bits(self) -> int:
        """How many bits the next code has."""
        return len(self._starts).bit_length()

    def add_unit(self, unit: int) -> None:
        """Add a code unit, and learn it."""
        start = len(self._units)
        self._learn(start, start + _BYTES_OF_A_UNIT)
        self._learn_previous()
        self._append(unit.to_bytes(_BYTES_OF_A_UNIT, "little"))

    def add_phrase(self, code: int) -> None:
        """Add what a code stands for."""
        self._learn_previous()
        if code >= len(self._starts):
            raise ValueError("The compressed text has a code that stands for nothing.")
        start, end = self._starts[code], self._ends[code]
        phrase = self._units[start:end]
        if len(phrase) < end - start:
            # The phrase just learnt ends with the first unit of what is added now: its own.
            phrase += phrase[:_BYTES_OF_A_UNIT]
        self._append(phrase)

    def text(self) -> str:
        """Return the units as text."""
        try:
            text = self._units.decode("utf-16-le")
        except UnicodeDecodeError:
            raise ValueError("The decompressed text has lone surrogates.") from None
        self._check_size(len(text.encode()))
        return text

    def _learn(self, start: int, end: int) -> None:
        self._starts.append(start)
        self._ends.append(end)

    def _learn_previous(self) -> None:
        """Learn what was added last and the unit after it, which is about to be added."""
        if self._units:
            self._learn(self._previous, len(self._units) + _BYTES_OF_A_UNIT)

    def _append(self, units: bytes | bytearray) -> None:
        self._previous = len(self._units)
        # A code unit has at least one byte in UTF-8.
        self._check_size((self._previous + len(units)) // _BYTES_OF_A_UNIT)
        self._units += units

    def _check_size(self, size: int) -> None:
        if size > self._max_bytes:
            raise ValueError(f"The decompressed text is larger than {self._max_bytes} bytes.")


class _PhraseWriter:
    """Writes the codes of phrases."""

    def __init__(self) -> None:
        self._new_units: dict[int, int] = {}
        self._characters: list[str] = []
        self._bits = 0
        self._held = 0
        self._learnt = _FIRST_PHRASE - 1

    def introduce(self, code: int, unit: int) -> None:
        """Say which unit a new code stands for; a reader will know when it is first written."""
        self._new_units[code] = unit

    def write(self, phrase: int) -> None:
        """Write a phrase's code, or the unit that it stands for if that is new."""
        if phrase in self._new_units:
            self._write_unit(self._new_units.pop(phrase))
        else:
            self._write_number(phrase, self._learnt.bit_length())
        self._learnt += 1

    def end(self) -> str:
        """Return all that was written, with its end."""
        self._write_number(_END, self._learnt.bit_length())
        # lz-string pads with one to six bits, never with none.
        self._write_number(0, _BITS_OF_A_CHARACTER - self._held)
        return "".join(self._characters)

    def _write_unit(self, unit: int) -> None:
        code = 0 if unit < 256 else 1
        self._write_number(code, self._learnt.bit_length())
        self._write_number(unit, _BITS_OF_A_UNIT[code])
        self._learnt += 1

    def _write_number(self, number: int, width: int) -> None:
        self._bits |= number << self._held
        self._held += width
        while self._held >= _BITS_OF_A_CHARACTER:
            self._characters.append(_CHARACTERS[self._bits & 0b111111])
            self._bits >>= _BITS_OF_A_CHARACTER
            self._held -= _BITS_OF_A_CHARACTER
