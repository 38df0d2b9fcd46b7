"""Pickles that hold dicts, lists, strings, whole numbers and arrays of them, and can do no more.

The instructions are carried out here, not by an unpickler: it makes room for as many objects as it
is told to expect, and looks up keys that are made to collide.
"""

import enum
import math
import pickle
import pickletools
from typing import Any

import numpy as np

from jaxsens.data.dataset import DataError, reason, shown
from jaxsens.data.files.budget import AXES, Budget

# Everything that Python 2 and 3 write for these types; nothing that makes other objects, asks for
# ones from outside, or copies what is already there.
VALUES = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
}
STRINGS = {"STRING", "BINSTRING", "SHORT_BINSTRING"}  # of Python 2, which are bytes
BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
STORE, RECALL = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}


class _Function(enum.Enum):
    """What a pickle may call; each stands for itself, and nothing in a pickle can change it."""

    RECONSTRUCT = enum.auto()  # an array to be built
    FROM_BUFFER = enum.auto()  # an array, by protocol 5
    NDARRAY = enum.auto()  # only ever an argument of the first
    DTYPE = enum.auto()
    SCALAR = enum.auto()  # a number as NumPy has them
    ENCODE = enum.auto()  # how Python 3 writes bytes for Python 2


# NumPy has moved its modules; the names are what its arrays are pickled with.
NUMPY = {
    "_reconstruct": _Function.RECONSTRUCT,
    "_frombuffer": _Function.FROM_BUFFER,
    "ndarray": _Function.NDARRAY,
    "scalar": _Function.SCALAR,
    "dtype": _Function.DTYPE,
}
CODES = {f"{sign}{size}" for sign in "iu" for size in (1, 2, 4, 8)}


class Kind:
    """The element type of an array: whole numbers."""

    def __init__(self, code: Any):
        name = code.decode("latin1") if isinstance(code, bytes) else code
        if name not in CODES:
            raise pickle.UnpicklingError(f"it holds an array of {shown(repr(code))}, expected 'u1'")
        self.dtype = np.dtype(f"<{name}")

    def build(self, state: Any) -> None:
        if state[1] in (">", b">"):
            self.dtype = self.dtype.newbyteorder(">")


class Array:
    """An array of whole numbers; ``value`` once it has been built."""

    value: np.ndarray | None = None

    def build(self, shape: Any, kind: Any, fortran: Any, content: Any) -> None:
        if not isinstance(kind, Kind) or not isinstance(content, (bytes, bytearray)):
            raise pickle.UnpicklingError("it holds an array of something else than bytes")
        if len(shape) > AXES or not all(type(n) is int and 0 <= n < 2**40 for n in shape):
            raise pickle.UnpicklingError("it holds an array of impossible shape")
        if math.prod(shape) * kind.dtype.itemsize != len(content):
            raise pickle.UnpicklingError(f"it holds {len(content)} bytes for the shape {shape}")
        array = np.frombuffer(content, kind.dtype)
        self.value = array.reshape(shape, order="F" if fortran else "C")


def loads(content: bytes, where: str, budget: Budget) -> Any:
    """What was pickled by protocol 0 to 5; byte strings of Python 2 as bytes, arrays as `Array`.

    Raises DataError starting with ``where`` for anything but dicts, lists, tuples, strings, whole
    numbers and arrays of them, and for a pickle that is damaged. Memory stays in proportion to
    ``content``. No function of NumPy, or of anything else, is called with what the pickle says.
    """
    try:
        return _run(content, budget)
    except Exception as error:  # a damaged pickle breaks the reader in any way there is
        raise DataError(
            f"{where} is no pickle of arrays, lists, numbers and strings alone: {reason(error)}"
        ) from None


def _run(content: bytes, budget: Budget) -> Any:
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[int, Any] = {}

    def since_mark() -> list[Any]:
        start = marks.pop()
        values = stack[start:]
        del stack[start:]
        return values

    argument: Any
    for operation, argument, _ in pickletools.genops(content):
        budget.count()
        name = operation.name
        if name in VALUES:
            stack.append(argument)
        elif name in STRINGS:
            stack.append(argument.encode("latin1"))
        elif name in BYTES:
            stack.append(argument)
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name in STORE:
            memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
        elif name in RECALL:
            stack.append(memo[argument])
        elif name == "MARK":
            marks.append(len(stack))
        elif name in ("APPEND", "APPENDS"):
            values = [stack.pop()] if name == "APPEND" else since_mark()
            _expect(stack[-1], list).extend(values)
        elif name in ("SETITEM", "SETITEMS"):
            values = [stack.pop(-2), stack.pop()] if name == "SETITEM" else since_mark()
            _fill(_expect(stack[-1], dict), values)
        elif name in ("EMPTY_LIST", "LIST"):
            stack.append([] if name == "EMPTY_LIST" else since_mark())
        elif name in ("EMPTY_DICT", "DICT"):
            stack.append(_fill({}, [] if name == "EMPTY_DICT" else since_mark()))
        elif name == "TUPLE":
            stack.append(tuple(since_mark()))
        elif name in TUPLES:
            size = TUPLES[name]
            stack[len(stack) - size :] = [tuple(stack[len(stack) - size :])]
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            names = argument.split(" ") if name == "GLOBAL" else [stack.pop(-2), stack.pop()]
            stack.append(_function(*names))
        elif name == "REDUCE":
            arguments, function = stack.pop(), stack.pop()
            stack.append(_call(function, *_expect(arguments, tuple), budget=budget))
        elif name == "BUILD":
            _build(stack[-2], stack.pop())
        elif name == "STOP":
            return stack.pop()
        elif name not in ("PROTO", "FRAME"):
            raise pickle.UnpicklingError(f"it uses the operation {name}")


def _expect(value: Any, kind: type) -> Any:
    if type(value) is not kind:
        raise pickle.UnpicklingError(f"it takes a {type(value).__name__} for a {kind.__name__}")
    return value


def _fill(target: dict[Any, Any], values: list[Any]) -> dict[Any, Any]:
    for key, value in zip(values[::2], values[1::2], strict=True):
        # Numbers can be chosen to collide, each with all before it; strings hash at random.
        if not isinstance(key, (str, bytes)):
            raise pickle.UnpicklingError(f"it has a key of the type {type(key).__name__}")
        target[key] = value
    return target


def _function(module: Any, name: Any) -> _Function:
    if isinstance(module, str) and isinstance(name, str):
        if module.split(".")[0] == "numpy" and name in NUMPY:
            return NUMPY[name]
        if (module, name) == ("_codecs", "encode"):
            return _Function.ENCODE
    raise pickle.UnpicklingError(f"it asks for {shown(f'{module}.{name}')}")


def _call(function: Any, *arguments: Any, budget: Budget) -> Any:
    if function is _Function.DTYPE:
        return Kind(arguments[0])
    if function is _Function.SCALAR:
        number = Array()
        number.build((1,), arguments[0], False, arguments[1])
        return int(number.value[0]) if number.value is not None else None
    if function is _Function.RECONSTRUCT:
        return Array()
    if function is _Function.FROM_BUFFER:
        content, kind, shape, order = arguments
        array = Array()
        array.build(shape, kind, order in ("F", b"F"), content)
        return array
    if function is _Function.ENCODE:
        text, encoding = arguments
        if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
            raise pickle.UnpicklingError("it encodes something else than bytes")
        budget.keep(len(text))  # one text can be encoded again and again
        return text.encode("latin1")
    raise pickle.UnpicklingError(f"it calls a {type(function).__name__}")


def _build(target: Any, state: Any) -> None:
    if isinstance(target, Kind):
        target.build(state)
    elif isinstance(target, Array):
        _, shape, kind, fortran, content = state
        target.build(shape, kind, fortran, content)
    else:
        raise pickle.UnpicklingError("it changes a function")
