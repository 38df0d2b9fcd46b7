"""Sub-word tokens: a byte-level BPE trained on the text, or the user's own vocabulary."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
from jaxtyping import Bool, Int

from jaxsens.data.dataset import DataError, reason, shown
from jaxsens.data.split import Split
from jaxsens.data.text.pairs import Pairs

# In the order of RoBERTa's first four ids: 0, 1, 2, 3.
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>")
MAX_LENGTH = 128
MAX_BYTES = 2**26  # of a tokenizer file; RoBERTa's takes 3.5 MB
NEED = 'a tokenizer needs the package tokenizers; run: pip install -e ".[text]"'


class Encoded(NamedTuple):
    """Token ids (N, T), padded on the right, and which of them are real, (N, T)."""

    ids: Int[np.ndarray, "N T"]
    mask: Bool[np.ndarray, "N T"]


class Tokenizer:
    """Pairs of sentences to ids: ``<s> a </s></s> b </s>``, as RoBERTa reads them (paper A, 6).

    Where a pair is longer than ``max_length`` tokens, the longer sentence gives up its end first.
    """

    def __init__(self, inner: Any) -> None:
        ids = {token: inner.token_to_id(token) for token in SPECIAL}
        missing = [token for token in SPECIAL[:3] if ids[token] is None]
        if missing:
            raise DataError(
                f"the tokenizer has no token {missing[0]}; expected {', '.join(SPECIAL[:3])}, as "
                "RoBERTa's has"
            )
        from tokenizers import processors

        inner.post_processor = processors.RobertaProcessing(
            ("</s>", ids["</s>"]), ("<s>", ids["<s>"]), trim_offsets=True, add_prefix_space=False
        )
        inner.no_padding()
        self._inner, self.pad = inner, int(ids["<pad>"])

    @classmethod
    def train(cls, sentences: Iterable[str], *, vocabulary: int) -> Self:
        """Byte-level BPE with up to ``vocabulary`` tokens, the same for the same sentences.

        Raises DataError for fewer tokens than the 256 bytes and the special ones take.
        """
        tokenizers = _tokenizers()
        least = 256 + len(SPECIAL)
        if vocabulary < least:
            raise DataError(f"the vocabulary must have at least {least} tokens, got {vocabulary}")
        inner = _byte_level(tokenizers.models.BPE())
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        )
        inner.train_from_iterator(sentences, trainer)
        return cls(inner)

    @classmethod
    def read(cls, path: Path | str) -> Self:
        """The tokenizer of ``tokenizer.json``, or of a folder with that or with two files.

        These are ``vocab.json`` and ``merges.txt``, as GPT-2 and RoBERTa are published.

        Raises DataError for files that are missing, too large or damaged, or a vocabulary without
        ``<s>``, ``<pad>`` and ``</s>``.
        """
        tokenizers = _tokenizers()
        path = Path(path).expanduser()
        files = [path] if path.is_file() else [path / "tokenizer.json"]
        if path.is_dir() and not files[0].is_file():
            files = [path / "vocab.json", path / "merges.txt"]
        for file in files:
            if not file.is_file():
                raise DataError(
                    f"there is no {file}; expected tokenizer.json, or vocab.json and merges.txt"
                )
            if file.stat().st_size > MAX_BYTES:
                raise DataError(f"{file} has more than {MAX_BYTES} bytes; it is no tokenizer")
        try:
            if len(files) == 1:
                inner = tokenizers.Tokenizer.from_str(files[0].read_text("utf-8"))
            else:
                bpe = tokenizers.models.BPE.from_file(*map(str, files), unk_token="<unk>")
                inner = _byte_level(bpe)
                inner.add_special_tokens([t for t in SPECIAL if inner.token_to_id(t) is not None])
        except Exception as error:  # the library raises plain Exception for whatever it finds
            raise DataError(f"{files[0]} is no tokenizer: {reason(error)}") from None
        return cls(inner)

    @property
    def size(self) -> int:
        """One more than the largest id."""
        return max(self._inner.get_vocab(with_added_tokens=True).values()) + 1

    def to_json(self) -> str:
        """The whole tokenizer, as :meth:`read` takes it from ``tokenizer.json``."""
        self._inner.no_truncation()  # which the last encoding had set
        return json.dumps(json.loads(self._inner.to_str()), ensure_ascii=False, sort_keys=True)

    def tokens(self, ids: Int[np.ndarray, " T"]) -> list[str]:
        """The tokens of these ids as text."""
        return [self._inner.decode([int(i)], skip_special_tokens=False) for i in ids]

    def encode(
        self, pairs: Pairs, *, max_length: int = MAX_LENGTH, pad_to: int | None = None
    ) -> Split:
        """``Split(Encoded(ids, mask), labels)``, padded to the longest pair or to ``pad_to``.

        Raises DataError where ``max_length`` leaves no room for both sentences or is more than
        ``pad_to``.
        """
        if max_length < 6:
            raise DataError(
                f"a pair needs at least 6 tokens (four of them <s> and </s>), got {max_length}"
            )
        self._inner.enable_truncation(max_length, strategy="longest_first")
        try:
            encoded = self._inner.encode_batch(list(zip(pairs.first, pairs.second, strict=True)))
        except Exception as error:
            raise DataError(f"the tokenizer cannot encode the pairs: {reason(error)}") from None
        longest = max(len(found.ids) for found in encoded)
        width = longest if pad_to is None else pad_to
        if longest > width:
            raise DataError(f"a pair has {longest} tokens, more than the {width} to pad to")
        ids = np.full((len(encoded), width), self.pad, np.int32)
        mask = np.zeros(ids.shape, bool)
        for row, found in enumerate(encoded):
            ids[row, : len(found.ids)] = found.ids
            mask[row, : len(found.ids)] = True
        return Split(Encoded(ids, mask), pairs.labels)


def _byte_level(model: Any) -> Any:
    """A tokenizer around a BPE over bytes: no text is unknown, case and spaces are kept."""
    tokenizers = _tokenizers()
    inner = tokenizers.Tokenizer(model)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = tokenizers.decoders.ByteLevel()
    return inner


def _tokenizers() -> Any:
    try:
        import tokenizers
        import tokenizers.decoders
        import tokenizers.models
        import tokenizers.pre_tokenizers
        import tokenizers.processors
        import tokenizers.trainers
    except ImportError as error:
        raise DataError(f"{NEED} ({shown(str(error))})") from None
    return tokenizers
