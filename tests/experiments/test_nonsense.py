"""Every option of every experiment with values that cannot be: refused in one line, unstarted."""

import dataclasses
import math
import time
import typing

import pytest

from command.line import UserError
from experiments import (
    cifar,
    fashion_mnist,
    grokking,
    imagenet,
    mnist,
    sparse_parity,
    svhn,
    synthetic,
)

MODULES = {
    module.__name__.split(".")[-1]: module
    for module in (cifar, fashion_mnist, grokking, imagenet, mnist, sparse_parity, svhn, synthetic)
}
NONSENSE = {
    int: (0, -1, -(10**12), 10**12),
    float: (0.0, -1.0, math.nan, math.inf, -math.inf, 1e39, 1e300, 1e-46, 1e-310),
}
# What makes sense after all: a seed of 0, no decay, dropout or penalty, a target never met.
SENSE = {
    ("seed", 0), ("split_seed", 0), ("weight_decay", 0.0), ("dropout", 0.0), ("until", math.inf),
    ("until", 1e39), ("until", 1e300), ("until", 1e-46), ("until", 1e-310),
    ("weight_decay", 1e-46), ("weight_decay", 1e-310), ("dropout", 1e-46), ("dropout", 1e-310),
    ("beta2", 1e-46), ("beta2", 1e-310), ("train_fraction", 1e-310),
    ("regularisation_strength", 0.0), ("regularisation_strength", 1e-46),
    ("regularisation_strength", 1e-310),
}  # fmt: skip


def cases():
    for name, module in MODULES.items():
        hints = typing.get_type_hints(module.Config)
        for field in dataclasses.fields(module.Config):
            hint = hints[field.name]
            kinds = [kind for kind in typing.get_args(hint) or (hint,) if kind is not type(None)]
            many = typing.get_origin(hint) is tuple
            for value in NONSENSE.get(kinds[0], ()):
                if (field.name, value) not in SENSE:
                    yield pytest.param(name, field.name, (value,) if many else value)
            if many and NONSENSE.get(kinds[0]):
                yield pytest.param(name, field.name, (kinds[0](2), kinds[0](2)))


@pytest.mark.parametrize(("name", "option", "value"), list(cases()))
@pytest.mark.parametrize("smoke", [False, True])
def test_nonsense_is_one_line_that_names_the_option(name, option, value, smoke):
    config = dataclasses.replace(MODULES[name].Config(), **{option: value, "smoke": smoke})
    begun = time.perf_counter()
    with pytest.raises(UserError) as error:
        config.settled()
    said = str(error.value)
    assert f"--{option.replace('_', '-')}" in said
    assert "\n" not in said
    assert len(said) < 400
    assert time.perf_counter() - begun < 1


def test_there_are_many():
    assert sum(1 for _ in cases()) > 300


@pytest.mark.parametrize("name", MODULES)
def test_what_an_experiment_does_by_itself_makes_sense(name):
    MODULES[name].Config().settled()
    dataclasses.replace(MODULES[name].Config(), smoke=True).settled()


@pytest.mark.parametrize(
    ("name", "changed", "said"),
    [
        ("grokking", {"modulus": 1000003}, "--modulus 1000003 would take 3.47 EiB for the outputs"),
        ("grokking", {"repeats": 10**11}, "--repeats must be at most 1000000 (each is a forward"),
        ("grokking", {"split_seed": 2**32}, "--split-seed must be at most 4294967295 (JAX drops"),
        ("cifar", {"sigma2": (1.0, 1.0 + 1e-12)}, "--sigma2 names a value twice"),
        ("mnist", {"accept_changes": True}, "--accept-changes is for a run that --resume takes up"),
        (
            "sparse_parity",
            {"setting": ("9,3,8,1e-3,0", "9,3,8,0.001000000001,1")},
            "--setting names learning rates that print alike",
        ),
        ("sparse_parity", {"setting": (f"9,3,8,1,{2**32}",)}, "a seed that is at most 4294967295"),
        ("sparse_parity", {"setting": ("9,3,8,1e39,0",)}, "a learning rate that is at most 3.4e+"),
        ("sparse_parity", {"final_samples": 2**31 - 1}, "--final-samples 2147483647 would take"),
    ],
)  # fmt: skip
def test_what_collides_or_does_not_fit_is_told(name, changed, said):
    with pytest.raises(UserError) as error:
        dataclasses.replace(MODULES[name].Config(), **changed).settled()
    assert said in str(error.value)
