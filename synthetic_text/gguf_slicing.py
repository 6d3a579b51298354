"""Makes the embedded language model faster: a GGUF file without the pieces that English needs not.

Two thirds of Gemma 3 270M are the embeddings of 262,144 pieces, and every token pays for all of
them in the output layer. 59,203 stay. (A first cut, to 51,298, wrote 104 tokens a CPU second against 72
with the 157,433 that are written in Latin letters, side by side on one machine.)
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

WORD_FORMS = (
    ("▁{word}", 30_000),
    ("▁{capitalised}", 12_000),
    ("{word}", 6_000),
    ("{capitalised}", 6_000),
    ("▁{upper}", 1_500),
    ("{upper}", 1_500),
)
"""Forms in which the most frequent words stay whole: after a blank (▁) or at the start of a line."""

# Besides the pieces of words: punctuation, digits and emoji, but no code of several characters.
_SHORT_PIECE = re.compile(
    r"[\n\x20-\x7e£€é▁\u2018-\u2026\u2600-\u27bf\ufe0f\U0001f1e6-\U0001faff]{1,4}"
)
_LETTERS = re.compile(r"▁?[A-Za-z]+")
_CODE = re.compile(r"[{}\[\]\\<>|^`~=#$_;@%]")
_UNUSED_PIECE = re.compile(r"<unused\d+>")
_NORMAL_TYPE = 1  # llama.cpp's number for pieces that are neither control, byte nor user-defined


def slice_model(source: Path, target: Path) -> int:
    """Copies a GGUF file to one that runs faster; the number of pieces kept.

    Lossless: the weights. The rows that stay are copied as quantised bytes, and 5-bit weights, slow
    in llama.cpp on x86, become 8-bit ones, in which they fit exactly. So is the tokenization of text
    in the words and forms of WORD_FORMS, for which every piece on their way of merges stays.

    Not lossless: other words, in English too, come in as smaller pieces than the model was trained
    on, and can be written by it in such pieces only; the probability of the pieces left out goes to
    those that stay. Other languages are as good as lost.
    """
    import gguf
    import numpy as np

    reader = gguf.GGUFReader(source)
    pieces = reader.fields["tokenizer.ggml.tokens"].contents()
    types = reader.fields["tokenizer.ggml.token_type"].contents()
    scores = reader.fields["tokenizer.ggml.scores"].contents()
    kept = choose_pieces(pieces, types, scores)
    new_id = {old: new for new, old in enumerate(kept)}

    writer = gguf.GGUFWriter(target, reader.fields["general.architecture"].contents())
    for name, entry in reader.fields.items():
        if name.startswith("GGUF.") or name == "general.architecture":  # written by GGUFWriter
            continue
        value = entry.contents()
        if name.endswith("_token_id"):
            value = new_id[value]
        elif isinstance(value, list) and len(value) == len(pieces):
            value = [value[i] for i in kept]
        element = entry.types[-1] if len(entry.types) > 1 else None
        writer.add_key_value(name, value, entry.types[0], element)
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if tensor.name == "token_embd.weight":
            data = data[np.array(kept)]
        if kind == gguf.GGMLQuantizationType.Q5_0:
            data, kind = widen_to_8_bits(data), gguf.GGMLQuantizationType.Q8_0
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return len(kept)


def choose_pieces(
    pieces: Sequence[str], types: Sequence[int], scores: Sequence[float]
) -> list[int]:
    """Ids that stay, ascending: what frequent English words merge from, short symbols, controls."""
    score = {p: s for p, s, kind in zip(pieces, scores, types, strict=True) if kind == _NORMAL_TYPE}
    needed: set[str] = set()
    for word in _list_word_forms():
        needed |= list_merged_pieces(word, score)
    return [
        i
        for i, (piece, kind) in enumerate(zip(pieces, types, strict=True))
        if not _UNUSED_PIECE.fullmatch(piece)
        and (kind != _NORMAL_TYPE or piece in needed or _is_short_symbol(piece))
    ]


def list_merged_pieces(word: str, score: Mapping[str, float]) -> set[str]:
    """The characters of a word and all pieces on the way of its tokenization.

    SentencePiece's and llama.cpp's: of neighbours that make a piece, those with the highest score
    are merged, the first ones of equals, until none do. Where every piece returned here stays, a
    subset of the others changes nothing: the same pair is the best at each step.
    """
    symbols = list(word)
    met = set(symbols)
    while True:
        pairs = [
            (-score[pair], i)
            for i in range(len(symbols) - 1)
            if (pair := symbols[i] + symbols[i + 1]) in score
        ]
        if not pairs:
            return met
        _, i = min(pairs)
        symbols[i : i + 2] = [symbols[i] + symbols[i + 1]]
        met.add(symbols[i])


def widen_to_8_bits(rows: "np.ndarray") -> "np.ndarray":
    """Q5_0 rows, uint8 [n, 22 * blocks], as Q8_0 rows of the same values, uint8 [n, 34 * blocks].

    A block is 32 weights that share a scale (2 bytes). Q5_0 goes on with their fifth bits (4 bytes)
    and their low nibbles, offset by 16: byte i holds weights i and i + 16. Q8_0 with signed bytes.
    """
    import numpy as np

    blocks = rows.reshape(len(rows), -1, 22)
    scale, nibbles = blocks[..., :2], blocks[..., 6:]
    fifth = np.unpackbits(blocks[..., 2:6], axis=-1, bitorder="little")
    low = np.concatenate([nibbles & 15, nibbles >> 4], axis=-1)
    values = (low | fifth << 4).astype(np.int8) - np.int8(16)
    return np.concatenate([scale, values.view(np.uint8)], axis=-1).reshape(len(rows), -1)


def _list_word_forms() -> Iterable[str]:
    import wordfreq

    for form, count in WORD_FORMS:
        for word in wordfreq.top_n_list("en", count, wordlist="large"):
            yield form.format(word=word, capitalised=word.capitalize(), upper=word.upper())


def _is_short_symbol(piece: str) -> bool:
    return (
        _SHORT_PIECE.fullmatch(piece) is not None
        and not _LETTERS.fullmatch(piece)
        and (len(piece) == 1 or not _CODE.search(piece))
    )
