"""Pieces of words: a SentencePiece model seen as a stream of words that is the same everywhere.

Every word is encoded alone, so the tokens of a message are its words' tokens one after the other,
and the device can stream word by word into exactly the stream the model was trained on. In every
piece "▁" means "a word ends here": the pieces of a model trained with `treat_whitespace_as_suffix`
have it at the end ("tomor", "row▁"). SentencePiece's own word model ignores that option when it
encodes, so a word model is trained without it; each of its pieces is a word with the mark in front
("▁tomorrow").
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence

import numpy as np
import sentencepiece

from device_runtime.words import is_word, split_words

PAD, BOS, EOS, UNK = range(4)  # ids of the control pieces, in every model
_MARK = "▁"  # U+2581, SentencePiece's blank
_LAST = "\U0010ffff"  # sorts after every character of a piece


class Tokenizer:
    """A SentencePiece model, suffix-marked (unigram, bpe) or word, with identity normalisation.

    Attributes:
        size: V, number of pieces.
        surfaces: the V pieces without their mark; "" for control and unknown pieces.
        ends_word: bool [V], whether the piece is the last one of its word.
        can_suggest: bool [V], whether the piece is text: not control, unknown or a byte.

    Raises:
        ValueError: `model` is no SentencePiece model, or has other control ids or no word ends.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError("not a SentencePiece model") from error
        sp = self._pieces
        if (sp.pad_id(), sp.bos_id(), sp.eos_id(), sp.unk_id()) != (PAD, BOS, EOS, UNK):
            raise ValueError("train with pad_id=0, bos_id=1, eos_id=2, unk_id=3")
        self.size: int = sp.get_piece_size()
        names = [sp.id_to_piece(i) for i in range(self.size)]
        self.can_suggest = np.array(
            [not (sp.is_control(i) or sp.is_unknown(i) or sp.is_byte(i)) for i in range(self.size)]
        )
        self.surfaces = [
            name.replace(_MARK, "") if text else ""
            for name, text in zip(names, self.can_suggest, strict=True)
        ]
        self.ends_word = np.array([_MARK in name for name in names])
        self._names = names
        marked_in_front = sum(len(name) > 1 and name.startswith(_MARK) for name in names)
        if marked_in_front:
            # A word model: whatever it does not know is one unknown piece and a word too.
            self.ends_word[UNK] = True
            if marked_in_front < self.can_suggest.sum():
                raise ValueError("train it with treat_whitespace_as_suffix=True")
        elif _MARK not in names:
            raise ValueError("it has no piece '▁', so words cannot end")

        # Words that are one piece, most of all text, need no call. This is public vocabulary:
        # typed words are never remembered.
        ends = [
            i
            for i in np.flatnonzero(self.ends_word & self.can_suggest).tolist()
            if self.surfaces[i]
        ]
        encoded = sp.encode([self.surfaces[i] for i in ends])
        if not all(ids and self.ends_word[ids[-1]] for ids in encoded):
            raise ValueError("its words do not end: train it with treat_whitespace_as_suffix=True")
        self._single = {
            self.surfaces[i]: ids for i, ids in zip(ends, encoded, strict=True) if ids == [i]
        }

        self._text_pieces = np.flatnonzero(self.can_suggest)
        self._sorted = sorted((s, i) for i, s in enumerate(self.surfaces) if self.can_suggest[i])
        self._sorted_ids = np.array([i for _, i in self._sorted], dtype=np.int64)
        self._starts = {s: i for s, i in self._sorted if not self.ends_word[i]}
        self._longest = max(map(len, self._starts), default=0)

    def encode_words(self, words: Sequence[str]) -> list[int]:
        """Token ids of `words` (as `split_words` gives them), each word encoded alone and ended."""
        return [i for ids in self.encode_each_word(words) for i in ids]

    def encode_each_word(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word: exactly one of them, the last, ends the word."""
        single = self._single
        known = [single.get(word) for word in words]
        others = [
            word.replace(_MARK, "_") for word, ids in zip(words, known, strict=True) if ids is None
        ]
        encoded = iter(self._pieces.encode(others) if others else ())
        return [ids if ids is not None else next(encoded) for ids in known]

    def piece(self, token: int) -> str:
        """The piece with its mark, or the name of a control piece such as `<s>`."""
        return self._names[token]

    def text(self, tokens: Iterable[int]) -> str:
        """The words of `tokens` with single blanks; control pieces vanish, unknown is U+FFFD."""
        parts = []
        for token in tokens:
            parts.append("\ufffd" if token == UNK else self.surfaces[token])
            if self.ends_word[token]:
                parts.append(" ")
        return "".join(parts).strip()

    def pieces_towards(self, prefix: str) -> np.ndarray:
        """Ids (int64, ascending) of the pieces a word that starts with `prefix` may start with.

        A piece goes beyond `prefix`, or is a first part of it that does not end the word.
        """
        if not prefix:
            return self._text_pieces
        first = bisect_left(self._sorted, (prefix,))
        last = bisect_left(self._sorted, (prefix + _LAST,))
        shorter = [
            self._starts[prefix[:n]]
            for n in range(1, min(len(prefix), self._longest + 1))
            if prefix[:n] in self._starts
        ]
        return np.sort(np.concatenate([self._sorted_ids[first:last], np.array(shorter, np.int64)]))


def is_one_word(text: str) -> bool:
    """Whether `text` is one whole word: what `split_words` leaves alone and the metric counts."""
    return text.isalnum() or (is_word(text) and split_words(text) == [text])


def begins_word(text: str) -> bool:
    """Whether some letter or digit after `text` makes it one whole word."""
    return is_one_word(text + "a") or is_one_word(text + "1")
