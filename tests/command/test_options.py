"""Constraints say what an option may be; numbers are judged by what they become on a device."""

import dataclasses
import math
from typing import Annotated

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from command import options
from command.line import UserError
from command.options import Choice, Count, Each, Named, Number


@dataclasses.dataclass(frozen=True)
class Options:
    """Some of every kind."""

    plain: int = -7
    count: Annotated[int, Count(most=100, why="memory")] = 1
    maybe: Annotated[int | None, Count()] = None
    rate: Annotated[float, options.POSITIVE] = 0.1
    decay: Annotated[float, options.NOT_NEGATIVE] = 0.0
    share: Annotated[float, options.SHARE] = 0.5
    dropout: Annotated[float, Number(least=0, below=1)] = 0.0
    variances: Annotated[tuple[float, ...], Each(least=1), options.VARIANCE] = (1.0, 2.0)
    word: Annotated[str, Choice(("vit", "mlp", "all"))] = "all"
    data: Annotated[str, Named()] = "x"
    seed: Annotated[int, options.SEED] = 0


WRONG = [
    ({"count": 0}, "--count must be at least 1, got 0"),
    ({"count": 101}, "--count must be at most 100 (memory), got 101"),
    ({"maybe": 0}, "--maybe must be at least 1, got 0"),
    ({"maybe": 10**12}, "--maybe must be at most 2147483647, got 1000000000000"),
    ({"rate": 0.0}, "--rate must be finite and greater than 0, got 0.0"),
    ({"rate": math.nan}, "--rate must be finite and greater than 0, got nan"),
    ({"rate": math.inf}, "--rate must be finite and greater than 0, got inf"),
    ({"rate": 1e39}, "--rate must be at most 3.4e+38 (it is a float32 number), got 1e+39"),
    ({"rate": 1e-46}, "--rate must be at least 1.18e-38 (less is 0 in float32), got 1e-46"),
    ({"rate": 1e-40}, "--rate must be at least 1.18e-38 (less is 0 in float32), got 1e-40"),
    ({"decay": -1.0}, "--decay must be finite and 0 or more, got -1.0"),
    ({"share": 1.0}, "--share must be above 0 and below 1, got 1.0"),
    ({"share": math.nan}, "--share must be above 0 and below 1, got nan"),
    ({"dropout": 1.0}, "--dropout must be at least 0 and below 1, got 1.0"),
    ({"variances": ()}, "--variances needs at least one value"),
    ({"variances": (1.0, 1.0)}, "--variances names a value twice: 1.0 1.0"),
    ({"variances": (1.0, 1.0000000001)}, "--variances names a value twice: 1.0 1.0000000001"),
    ({"variances": (1.0, 1e31)}, "--variances must be at most 1e+30 (noise that large overflows"),
    ({"word": "cnn"}, "--word must be vit, mlp or all, got 'cnn'"),
    ({"data": " "}, "--data must be a word, not empty, got ' '"),
    ({"seed": 2**32}, "--seed must be at most 4294967295 (JAX drops the bits above 32), got"),
    ({"seed": -1}, "--seed must be at least 0, got -1"),
]


@pytest.mark.parametrize(("changed", "message"), WRONG)
def test_each_constraint_says_what_it_wants(changed, message):
    with pytest.raises(UserError) as error:
        options.check(dataclasses.replace(Options(), **changed))
    assert str(error.value).startswith(message)


def test_what_is_right_passes():
    options.check(Options())
    options.check(Options(count=100, maybe=1, rate=1e38, dropout=0.0, word="mlp", seed=2**32 - 1))


@given(st.floats(min_value=0, exclude_min=True))
def test_a_positive_number_that_passes_is_positive_and_finite_in_float32(value):
    with np.errstate(all="ignore"):
        becomes = np.float32(value)
    try:
        options.check(Options(rate=value))
    except UserError:
        assert not np.finfo(np.float32).tiny < becomes < np.inf
    else:
        assert np.finfo(np.float32).tiny <= becomes < np.inf


def test_memory_is_stated():
    options.check_memory(10**6, "--modulus", 23, "the logits")
    with pytest.raises(UserError, match=r"--modulus 1000003 would take 3\.47 EiB for the logits; "):
        options.check_memory(4 * 1000003**3, "--modulus", 1000003, "the logits")
