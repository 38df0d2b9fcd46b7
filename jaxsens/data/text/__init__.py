"""Pairs of sentences and a label: `load(task, source)`; `Tokenizer` makes token ids of them."""

from jaxsens.data.text.catalogue import TASKS as TASKS
from jaxsens.data.text.catalogue import load as load
from jaxsens.data.text.pairs import Pairs as Pairs
from jaxsens.data.text.pairs import TextData as TextData
from jaxsens.data.text.tokenizer import Tokenizer as Tokenizer
