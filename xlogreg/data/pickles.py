"""Reading a pickled CIFAR-10 batch without unpickling anything that could act.

A pickle is a program: it may ask for any function of any module and call it. Three walls stand before that:

1. The instructions are scanned before the first one runs. Only those that a batch needs are let through, and the ones
   that cost memory or time out of proportion (far memo slots, endless nesting, long numbers as keys) are bounded.
2. The unpickler knows an exact list of names. Anything else is refused, by name.
3. Even the names on the list do not lead to NumPy: they lead to inert stand-ins that only note what they are told. The
   array is made afterwards, from bytes that lie in the file anyway, so that no number in a file can order memory.
"""

import io
import pickle
from dataclasses import dataclass
from typing import NoReturn

import numpy as np

from ..errors import InputError
from ..system.text import brief

# A batch of 10,000 pictures has about 41,000 instructions; with Python 3's detour for bytes about 100,000.
MAX_INSTRUCTIONS = 400_000
# Slots of the memo are allocated up to the highest one named, so that one instruction could ask for gigabytes.
MAX_MEMO = 400_000
# Tuples that are alive at once: the shape, the states of array and dtype, the arguments of a call.
MAX_TUPLES = 16

# MARK, EMPTY_DICT, EMPTY_LIST, TUPLE, APPEND(S), SETITEM(S), TUPLE1..3, MEMOIZE, NEWTRUE, NEWFALSE, STACK_GLOBAL, NONE,
# REDUCE, BUILD.
_PLAIN = b"(}]taesu\x85\x86\x87\x94\x88\x89\x93NRb"
# Instructions with an argument of so many bytes: PROTO, FRAME, the memo's PUT and GET, integers.
_FIXED = dict(zip(b"\x80\x95qrhjJKM", (1, 8, 1, 4, 1, 4, 4, 1, 2), strict=True))
# Instructions with a length of so many bytes and then the text, the bytes or the long integer.
_COUNTED = dict(zip(b"UT\x8cX\x8dCB\x8e\x96\x8a", (1, 4, 1, 4, 8, 1, 4, 8, 8, 1), strict=True))
_TUPLES = frozenset(b"t\x85\x86\x87")
_MEMO_PUT, _MEMO_GET = frozenset(b"qr\x94"), frozenset(b"hj")
_NEUTRAL = frozenset(b"\x80\x95")
# Instructions after which an older value lies on top; no pickler puts that one into the memo again.
_CHANGE = frozenset(b"(aesub")
_STOP, _GLOBAL, _LONG1, _REDUCE, _MEMOIZE = b".c\x8aR\x94"


def load_batch_pickle(content: bytes, name: str) -> dict[str, object]:
    """The dictionary of a pickled batch.

    Parameters
    ----------
    content : the whole file, already bounded in size by the caller
    name : what to call the file in an error

    Returns
    -------
    dict of str to values. Integers, text (str or bytes) and lists come as pickled; an array comes as ndarray (n, d),
    uint8, read-only, a view of `content`'s own bytes. Nothing else about the values has been checked.

    Raises
    ------
    InputError
        The file is damaged, is no pickled dictionary, or asks for something that a batch does not need.
    """
    unpickler = _BatchUnpickler(content, name)
    try:
        _scan(content, name)
        loaded = unpickler.load()
        if not isinstance(loaded, dict):
            raise InputError(f"{name} holds no dictionary, so it is not a CIFAR-10 batch; get the file again.")
        return {_text(key): value.pixels if isinstance(value, _Array) else value for key, value in loaded.items()}
    except InputError:
        raise
    except Exception as error:  # Damage shows as any of a dozen kinds of error: EOFError, IndexError, TypeError, ...
        kind = type(error).__name__
        raise InputError(f"{name} is damaged or is not a CIFAR-10 batch ({kind}); get the file again.") from error


def _text(key: object) -> str:
    if isinstance(key, bytes):
        return key.decode("latin-1")
    if isinstance(key, str):
        return key
    raise TypeError("a key that is not text")


def _scan(content: bytes, name: str) -> None:
    """Walk over the instructions without running any; refuse what no batch needs, and what would cost too much."""
    at = instructions = tuples = 0
    # Whether the value on top of the stack is a tuple, and which memo slots hold one (True) or something else.
    top_is_tuple = False
    memo: dict[int, bool] = {}
    previous = 0
    while at < len(content):
        code = content[at]
        at += 1
        instructions += 1
        argument = 0
        if code in _FIXED:
            argument = int.from_bytes(content[at : at + _FIXED[code]], "little")
            at += _FIXED[code]
        elif code in _COUNTED:
            argument = int.from_bytes(content[at : at + _COUNTED[code]], "little")
            at += _COUNTED[code] + argument
        elif code == _GLOBAL:
            lines = content[at : at + 512].split(b"\n", 2)
            if len(lines) < 3:
                raise EOFError
            _check_name(lines[0].decode("latin-1"), lines[1].decode("latin-1"), name)
            at += len(lines[0]) + len(lines[1]) + 2
        elif code == _STOP:
            if at != len(content):
                raise InputError(f"{name} goes on after its end, so it is not a CIFAR-10 batch; get the file again.")
            return
        elif code not in _PLAIN:
            raise InputError(f"{name} was refused: no CIFAR-10 batch needs the pickle instruction 0x{code:02x}.")
        # A long integer of any length as a key could be made to collide with others; short ones are harmless.
        if instructions > MAX_INSTRUCTIONS or (code == _LONG1 and argument > 4):
            _refuse_cost(name)
        if code in _MEMO_PUT:
            slot = len(memo) if code == _MEMOIZE else argument
            if slot > MAX_MEMO or previous in _CHANGE:
                _refuse_cost(name)
            memo[slot] = top_is_tuple
        elif code in _TUPLES:
            # Tuples within tuples, or one tuple used many times, would make a hash run for ever or the stack overflow.
            tuples += 1
            if tuples > MAX_TUPLES:
                _refuse_cost(name)
            top_is_tuple = True
        elif code not in _NEUTRAL:
            if code in _MEMO_GET and memo.get(argument, False):
                _refuse_cost(name)
            if code == _REDUCE:
                tuples = max(tuples - 1, 0)
            top_is_tuple = False
        if code not in _NEUTRAL:
            previous = code
    raise EOFError


def _refuse_cost(name: str) -> NoReturn:
    raise InputError(f"{name} was refused: it asks for more memory or time than a CIFAR-10 batch needs.")


@dataclass
class _Context:
    """What the stand-ins share: the file's name for errors, and how many characters may still be encoded."""

    name: str
    to_encode: int


class _StandIn:
    """What a name on the list leads to: it can be called as the batch needs it, and nothing else.

    `__setstate__` matters: without it a pickle could set attributes on this very object and so change later reads.
    """

    __slots__ = ("context",)

    def __init__(self, context: _Context) -> None:
        self.context = context

    def __setstate__(self, state: object) -> None:
        raise TypeError("a name has no state")

    def __call__(self, *arguments: object) -> object:
        raise TypeError("this name is not called in a batch")


class _Ndarray(_StandIn):
    """numpy.ndarray: only ever an argument of `_reconstruct`."""

    __slots__ = ()


class _Reconstruct(_StandIn):
    """numpy's _reconstruct(ndarray, (0,), b"b"): an array whose content follows by `__setstate__`."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> object:
        kind, shape, _ = arguments
        if not isinstance(kind, _Ndarray) or shape != (0,):
            raise TypeError("not an empty array")
        return _Array(self.context.name)


class _FromBuffer(_StandIn):
    """numpy's _frombuffer(bytes, dtype, shape, order), which pickles of protocol 5 use."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> object:
        data, dtype, shape, order = arguments
        array = _Array(self.context.name)
        array.fill(shape, dtype, order not in ("C", b"C"), data)
        return array


class _DtypeName(_StandIn):
    """numpy.dtype("u1", 0, 1)."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> object:
        kind = arguments[0]
        if kind not in ("u1", "|u1", b"u1", b"|u1"):
            raise InputError(
                f"{self.context.name} holds an array of type {_shown(kind)} where a CIFAR-10 batch has unsigned bytes; "
                "get the file again."
            )
        return _Dtype()


class _Encode(_StandIn):
    """_codecs.encode(text, "latin1"): how Python 3 writes bytes into a pickle that Python 2 can read."""

    __slots__ = ()

    def __call__(self, *arguments: object) -> object:
        text, encoding = arguments
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise TypeError("not bytes")
        # One long text encoded again and again would fill the memory; an honest pickle encodes each text once.
        self.context.to_encode -= len(text)
        if self.context.to_encode < 0:
            _refuse_cost(self.context.name)
        return text.encode("latin-1")


class _Dtype:
    """The data type "unsigned byte", the only one there is here."""

    __slots__ = ()
    __hash__ = None  # type: ignore[assignment]

    def __setstate__(self, state: object) -> None:
        # (version, byte order, subtype, field names, fields, ...): anything but None there is not a plain byte.
        if not isinstance(state, tuple) or len(state) < 5 or state[2:5] != (None, None, None):
            raise TypeError("not the state of a plain type")


class _Array:
    """An array to be; filled once."""

    __slots__ = ("name", "pixels")
    __hash__ = None  # type: ignore[assignment]

    def __init__(self, name: str) -> None:
        self.name = name
        self.pixels: np.ndarray | None = None

    def __setstate__(self, state: object) -> None:
        if not isinstance(state, tuple):
            raise TypeError("not the state of an array")
        _, shape, dtype, fortran, data = state
        self.fill(shape, dtype, fortran, data)

    def fill(self, shape: object, dtype: object, fortran: object, data: object) -> None:
        """Take the content: (n, d) unsigned bytes in C order, exactly as many bytes as the shape says."""
        if self.pixels is not None or not isinstance(dtype, _Dtype) or fortran:
            raise TypeError("not a new array of bytes in C order")
        if not isinstance(data, bytes | bytearray):
            raise TypeError("not an array of bytes")
        if not isinstance(shape, tuple) or len(shape) != 2 or any(type(side) is not int or side < 0 for side in shape):
            raise InputError(f"{self.name} holds an array that is not a table of pixels; get the file again.")
        if shape[0] * shape[1] != len(data):
            raise InputError(
                f"{self.name} holds {len(data)} bytes of pixels for {shape[0]} x {shape[1]}; get the file again."
            )
        self.pixels = np.frombuffer(data, dtype=np.uint8).reshape(shape)
        self.pixels.flags.writeable = False


# The exact list: NumPy's names before and since 2.0, and the detour of Python 3's protocol 2 for bytes.
_NAMES: dict[tuple[str, str], type[_StandIn]] = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy._core.numeric", "_frombuffer"): _FromBuffer,
    ("numpy", "ndarray"): _Ndarray,
    ("numpy", "dtype"): _DtypeName,
    ("_codecs", "encode"): _Encode,
}


def _check_name(module: str, attribute: str, name: str) -> type[_StandIn]:
    found = _NAMES.get((module, attribute))
    if found is None:
        raise InputError(
            f"{name} was refused: it asks for {_shown(f'{module}.{attribute}')}, which no CIFAR-10 batch needs; "
            "nothing in it was run, do not trust it."
        )
    return found


class _BatchUnpickler(pickle.Unpickler):
    """Knows the names of `_NAMES` and no others. Text of Python 2 stays bytes, so that pixels are never decoded."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(io.BytesIO(content), fix_imports=False, encoding="bytes")
        self.context = _Context(name, len(content))

    def find_class(self, module: str, attribute: str) -> _StandIn:
        """The stand-in for a name on the list; C code calls this for every name that a pickle asks for."""
        return _check_name(module, attribute, self.context.name)(self.context)

    def persistent_load(self, pid: object) -> NoReturn:
        raise InputError(f"{self.context.name} was refused: it refers to an object outside the file.")


def _shown(value: object) -> str:
    """A value from an untrusted file, short and without control characters; of nested ones the type only."""
    return brief(ascii(value[:80]), 100) if isinstance(value, str | bytes) else type(value).__name__
