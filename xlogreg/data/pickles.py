"""Reading a pickled CIFAR-10 batch without unpickling anything.

A pickle is a program: it may ask for any function of any module and call it. So none is run. The few instructions that
a batch needs are carried out here, on plain values, and any other is refused. A name can only be one of `_NAMES`, which
lead to no function but to words that `_called` knows; dictionaries have texts as keys, so that nothing else is hashed;
and the pixels are made from bytes that lie in the file anyway, so that no number in a file can order memory.
"""

import pickletools
from dataclasses import dataclass
from enum import Enum
from typing import Any, NoReturn

import numpy as np

from ..errors import InputError
from ..system.text import brief, given

# A batch of 10,000 pictures has about 21,000 instructions; with Python 3's detour for bytes about 100,000.
MAX_INSTRUCTIONS = 400_000
# Values that wait to be put into a list or a dictionary; picklers put them there after a thousand at most.
MAX_STACK = 20_000
# The longest key of a batch has 19 letters; one long text that is made a key again and again would take for ever.
MAX_KEY = 1000

# Instructions that put their argument, a number, a text or bytes, on the stack.
_PLAIN = frozenset({
    "BININT1", "BININT2", "BININT", "LONG1", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "SHORT_BINBYTES",
    "BINBYTES", "BINBYTES8", "BYTEARRAY8",
})  # fmt: skip


class _Name(Enum):
    """What a batch asks for by name."""

    NDARRAY, DTYPE, RECONSTRUCT, FROM_BUFFER, ENCODE = range(5)


# NumPy's names before and since 2.0, and how Python 3 writes bytes into a pickle that Python 2 can read.
_NAMES = {
    "numpy.core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy._core.multiarray _reconstruct": _Name.RECONSTRUCT,
    "numpy.core.numeric _frombuffer": _Name.FROM_BUFFER,
    "numpy._core.numeric _frombuffer": _Name.FROM_BUFFER,
    "numpy ndarray": _Name.NDARRAY,
    "numpy dtype": _Name.DTYPE,
    "_codecs encode": _Name.ENCODE,
}


class _Byte:
    """The data type "unsigned byte", the only one there is here."""


@dataclass(eq=False)
class _Array:
    """An array to be, filled once."""

    pixels: np.ndarray | None = None


def load_batch_pickle(content: bytes, name: str) -> dict[str, object]:
    """The dictionary of a pickled batch.

    Parameters
    ----------
    content : the whole file, already bounded in size by the caller
    name : what to call the file in an error

    Returns
    -------
    dict of str to values. Integers, text (str or bytes) and lists come as pickled; an array comes as ndarray (n, d),
    uint8, read-only. Nothing else about the values has been checked.

    Raises
    ------
    InputError
        The file is damaged, is no pickled dictionary, or asks for something that a batch does not need.
    """
    try:
        loaded = _Machine(name, len(content)).carry_out(content)
    except InputError:
        raise
    except Exception as error:  # Damage shows as any of a dozen kinds of error: ValueError, IndexError, TypeError, ...
        kind = type(error).__name__
        raise InputError(f"{name} is damaged or is not a CIFAR-10 batch ({kind}); get the file again.") from error
    if not isinstance(loaded, dict):
        raise InputError(f"{name} holds no dictionary, so it is not a CIFAR-10 batch; get the file again.")
    return {key: value.pixels if isinstance(value, _Array) else value for key, value in loaded.items()}


class _Machine:
    """Carries out the instructions of one pickle; the stack holds only values that were made here."""

    def __init__(self, name: str, size: int) -> None:
        self.name = name
        self.stack: list[Any] = []
        self.marks: list[int] = []
        # One long text encoded again and again would fill the memory; an honest pickle encodes each text once.
        self.to_encode = size

    def carry_out(self, content: bytes) -> object:
        """What the pickle describes."""
        stack, memo = self.stack, dict[int, Any]()
        instruction: Any
        value: Any
        for count, (instruction, value, at) in enumerate(pickletools.genops(content)):
            if count > MAX_INSTRUCTIONS or len(stack) > MAX_STACK:
                self.refuse_cost()
            match instruction.name:
                case "SHORT_BINSTRING" | "BINSTRING":  # Python 2's text, or bytes
                    stack.append(value.encode("latin-1"))
                case kind if kind in _PLAIN:
                    stack.append(value)
                case "NONE":
                    stack.append(None)
                case "NEWTRUE" | "NEWFALSE":
                    stack.append(instruction.name == "NEWTRUE")
                case "EMPTY_LIST":
                    stack.append([])
                case "EMPTY_DICT":
                    stack.append({})
                case "MARK":
                    self.marks.append(len(stack))
                case "TUPLE":
                    stack.append(tuple(self.popped()))
                case "TUPLE1" | "TUPLE2" | "TUPLE3":
                    stack.append(tuple(self.popped(int(instruction.name[-1]))))
                case "APPEND" | "APPENDS":
                    values = self.popped(1 if instruction.name == "APPEND" else None)
                    list.extend(stack[-1], values)  # a TypeError if it is no list
                case "SETITEM" | "SETITEMS":
                    values = self.popped(2 if instruction.name == "SETITEM" else None)
                    dict.update(stack[-1], zip(map(self.key, values[::2]), values[1::2], strict=True))
                case "BINPUT" | "LONG_BINPUT" | "MEMOIZE":
                    memo[len(memo) if value is None else value] = stack[-1]
                case "BINGET" | "LONG_BINGET":
                    stack.append(memo[value])
                case "GLOBAL":
                    stack.append(self.named(value))
                case "STACK_GLOBAL":
                    module, attribute = self.popped(2)
                    stack.append(self.named(f"{_text(module)} {_text(attribute)}"))
                case "REDUCE":
                    function, arguments = self.popped(2)
                    stack.append(self.called(function, arguments))
                case "BUILD":
                    (state,) = self.popped(1)
                    self.build(stack[-1], state)
                case "PROTO" | "FRAME":
                    pass
                case "STOP":
                    if at != len(content) - 1:
                        raise InputError(
                            f"{self.name} goes on after its end, so it is not a CIFAR-10 batch; get the file again."
                        )
                    return stack.pop()
                case _:
                    code = ord(instruction.code)
                    raise InputError(
                        f"{self.name} was refused: no CIFAR-10 batch needs the pickle instruction 0x{code:02x}."
                    )
        raise EOFError

    def popped(self, count: int | None = None) -> list[Any]:
        """So many values from the top of the stack, or all since the last mark."""
        start = self.marks.pop() if count is None else len(self.stack) - count
        if not 0 <= start <= len(self.stack):
            raise IndexError
        values = self.stack[start:]
        del self.stack[start:]
        return values

    def key(self, value: object) -> str:
        if isinstance(value, bytes) and len(value) > MAX_KEY:
            self.refuse_cost()
        return _text(value)

    def named(self, wanted: str) -> _Name:
        if wanted not in _NAMES:
            raise InputError(
                f"{self.name} was refused: it asks for {_shown(wanted.replace(' ', '.'))}, which no CIFAR-10 batch "
                "needs; nothing in it was run, do not trust it."
            )
        return _NAMES[wanted]

    def called(self, function: object, arguments: object) -> object:
        match function, arguments:
            case _Name.ENCODE, (str(text), "latin1" | b"latin1"):
                self.to_encode -= len(text)
                if self.to_encode < 0:
                    self.refuse_cost()
                return text.encode("latin-1")
            case _Name.DTYPE, (kind, *_):
                if kind not in ("u1", "|u1", b"u1", b"|u1"):
                    raise InputError(
                        f"{self.name} holds an array of type {_shown(kind)} where a CIFAR-10 batch has unsigned bytes; "
                        "get the file again."
                    )
                return _Byte()
            case _Name.RECONSTRUCT, (_Name.NDARRAY, (0,), _):
                return _Array()  # its content follows in its state
            case _Name.FROM_BUFFER, (data, _Byte(), shape, "C" | b"C"):
                return _Array(self.pixels(shape, data))
        raise TypeError("not called in a batch")

    def build(self, value: object, state: object) -> None:
        """Give a value that was made by a call its state."""
        match value, state:
            case _Array(pixels=None) as array, (_, shape, _Byte(), 0, data):  # 0, or False: not in Fortran's order
                array.pixels = self.pixels(shape, data)
            case _Byte(), (_, _, None, None, None, *_):  # version, byte order, subtype, field names, fields
                pass
            case _:
                raise TypeError("not the state of an array or of its type")

    def pixels(self, shape: object, data: object) -> np.ndarray:
        """(n, d) unsigned bytes in C order, exactly as many bytes as the shape says."""
        if not isinstance(data, bytes | bytearray):
            raise TypeError("not an array of bytes")
        match shape:
            case (int(n), int(d)) if n >= 0 and d >= 0:
                if n * d != len(data):
                    raise InputError(
                        f"{self.name} holds {len(data)} bytes of pixels for {given(n)} x {given(d)}; get the file "
                        "again."
                    )
                # A view: a copy for every array made of the same bytes would fill the memory.
                return np.frombuffer(memoryview(data).toreadonly(), dtype=np.uint8).reshape(n, d)
        raise InputError(f"{self.name} holds an array that is not a table of pixels; get the file again.")

    def refuse_cost(self) -> NoReturn:
        raise InputError(f"{self.name} was refused: it asks for more memory or time than a CIFAR-10 batch needs.")


def _text(value: object) -> str:
    if isinstance(value, bytes):
        return value.decode("latin-1")
    if isinstance(value, str):
        return value
    raise TypeError("not text")


def _shown(value: object) -> str:
    """A value from an untrusted file, short and without control characters; of nested ones the type only."""
    return brief(ascii(value[:80]), 100) if isinstance(value, str | bytes) else type(value).__name__
