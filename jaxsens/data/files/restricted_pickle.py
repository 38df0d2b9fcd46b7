"""Pickles that hold dicts, lists, numbers, strings and arrays of bytes, and can do nothing else."""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsens.data.dataset import DataError, reason, shown

MAX_OPERATIONS = 2**17  # a batch of CIFAR-10 takes about 30,000
# Everything that Python 2 and 3 write for these types; nothing that makes other objects, asks for
# ones from outside, or copies what is already there.
OPERATIONS = {
    *("PROTO", "FRAME", "STOP", "MARK", "NONE", "NEWTRUE", "NEWFALSE"),
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE"),
    *("EMPTY_LIST", "LIST", "APPEND", "APPENDS", "EMPTY_DICT", "DICT", "SETITEM", "SETITEMS"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3"),
    *("GLOBAL", "STACK_GLOBAL", "REDUCE", "BUILD"),
}
MEMO = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE", "GET", "BINGET", "LONG_BINGET"}


def loads(content: bytes, where: str) -> Any:
    """What was pickled; byte strings of Python 2 as bytes, arrays as uint8 arrays.

    Raises DataError starting with ``where`` for anything but dicts, lists, tuples, numbers, strings
    and arrays of unsigned bytes, and for a pickle that is damaged. Memory stays in proportion to
    ``content``. No function of NumPy, or of anything else, is called with what the pickle says.
    """
    try:
        # The unpickler itself would make room for whatever number of objects it is told to expect.
        for count, (operation, argument, _) in enumerate(pickletools.genops(content)):
            if operation.name not in OPERATIONS | MEMO:
                raise pickle.UnpicklingError(f"it uses the operation {operation.name}")
            if count >= MAX_OPERATIONS:
                raise pickle.UnpicklingError(f"it takes more than {MAX_OPERATIONS} operations")
            if operation.name in MEMO and (argument or 0) > MAX_OPERATIONS:
                raise pickle.UnpicklingError(f"it claims to hold {argument} objects")
        return _Unpickler(io.BytesIO(content), encoding="bytes").load()
    except Exception as error:  # a damaged pickle breaks the unpickler in any way there is
        raise DataError(
            f"{where} is no pickle of arrays, lists, numbers and strings alone: {reason(error)}"
        ) from None


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        # NumPy has moved its modules; the names are what its arrays are pickled with.
        package = module.split(".")[0]
        if package == "numpy" and name == "_reconstruct":
            return _Function(lambda kind, shape, code: Array())
        if package == "numpy" and name == "ndarray":
            return None  # only ever an argument of _reconstruct
        if package == "numpy" and name == "dtype":
            return _Function(_Bytes)
        if (module, name) == ("_codecs", "encode"):
            return _Function(_encode)  # how Python 3 writes bytes for Python 2
        raise pickle.UnpicklingError(f"it asks for {shown(f'{module}.{name}')}")


class _Function:
    """Something to call that nothing in a pickle can change."""

    __slots__ = ("_call",)

    def __init__(self, call: Callable[..., Any]):
        self._call = call

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a function")


class _Bytes:
    """The element type of an array: unsigned bytes, or it is refused."""

    def __init__(self, code: Any, align: Any = None, copy: Any = None):
        if code not in ("u1", b"u1"):
            raise pickle.UnpicklingError(f"it holds an array of {shown(repr(code))}, expected 'u1'")

    def __setstate__(self, state: Any) -> None:
        """Byte order, fields and the like say nothing about single bytes."""


class Array:
    """An array of unsigned bytes; ``value`` once it has been built."""

    value: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, content = state
        if not (isinstance(kind, _Bytes) and isinstance(content, bytes)):
            raise pickle.UnpicklingError("it holds an array of something else than bytes")
        if not all(isinstance(n, int) and n >= 0 for n in shape) or len(shape) > 8:
            raise pickle.UnpicklingError("it holds an array of impossible shape")
        if math.prod(shape) != len(content):
            raise pickle.UnpicklingError(f"it holds {len(content)} bytes for the shape {shape}")
        array = np.frombuffer(content, np.uint8)
        self.value = array.reshape(shape, order="F" if fortran else "C")


def _encode(text: Any, encoding: Any) -> bytes:
    if not isinstance(text, str) or encoding not in ("latin1", b"latin1"):
        raise pickle.UnpicklingError("it encodes something else than bytes")
    return text.encode("latin1")
