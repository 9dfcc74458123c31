"""Whisper weights of the released shapes, made up: speed can be measured without a download.

Every layer costs what it costs in the released model; the text means nothing. The decoder is a chain of words: each
word's hidden state points at the next word, the last one's at the end, and anything else's at the first. So a decode
says the whole chain, and one that is forced to begin at the chain's n-th last word says exactly n words, whatever the
audio, the prompt and the rest of the batch are.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from ctranslate2.specs import WhisperSpec

from callreel.errors import InvalidInput, ModelMissing


class Shape(NamedTuple):
    """What makes a size: `n_layers` both of the encoder and of the decoder; `cantonese` adds that language's token."""

    width: int
    n_layers: int
    n_heads: int
    n_mels: int = 80
    cantonese: bool = False


SHAPES = {
    "tiny": Shape(384, 4, 6),
    "base": Shape(512, 6, 8),
    "small": Shape(768, 12, 12),
    "medium": Shape(1024, 24, 16),
    "large-v3": Shape(1280, 32, 20, n_mels=128, cantonese=True),
}
N_FRAMES = 1500  # encoder positions: 30 s at 20 ms
N_POSITIONS = 448  # decoder positions
MAX_CHAIN = 224  # CTranslate2 gives a decode half of the positions
CANTONESE, BEFORE_CANTONESE = "<|yue|>", "<|su|>"
MANIFEST = "synthetic.json"
RECIPE = 2  # counts up when the same parameters give other weights: folders of an older recipe are written anew

Matrix: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]


@dataclass(frozen=True, slots=True)
class Synthetic:
    """What a folder of synthetic weights is; kept beside them as `synthetic.json`.

    `chain` holds the token ids of the words in the order they are said, each one a whole word with its leading space.
    """

    size: str
    seed: int
    quantization: str | None
    chain: tuple[int, ...]
    end: int  # endoftext; what follows it is itself
    recipe: int = RECIPE

    def prefix(self, n_words: int) -> list[int]:
        """Token ids that, put after the start tokens, make a decode say exactly `n_words` (0..len(chain)).

        The first word is forced by being the prefix, the others and the end are decoded. For 0 words it is the end,
        which CTranslate2 does not stop at while it is forced, followed by the end that is decoded: two steps, as for 1.
        A decode has room for 224 tokens, for fewer behind a prompt of more than about 200.
        """
        return [self.words(n_words)[0] if n_words else self.end]

    def words(self, n_words: int) -> list[int]:
        """Token ids of what a decode with `prefix(n_words)` says. Raises InvalidInput beyond the chain's length."""
        if not 0 <= n_words <= len(self.chain):
            raise InvalidInput(f"these weights say 0 to {len(self.chain)} words, not {n_words}")
        return list(self.chain[len(self.chain) - n_words :])


def read_synthetic(folder: Path) -> Synthetic:
    """What the synthetic weights in `folder` are. Raises ModelMissing where there are none."""
    try:
        fields = json.loads((folder / MANIFEST).read_text())
        return Synthetic(**fields | {"chain": tuple(fields["chain"])})
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelMissing(f"no synthetic weights in {folder}; write them with write_weights") from error


def write_weights(
    size: str,
    folder: Path,
    *,
    tokenizer_from: Path,
    chain: int = MAX_CHAIN,
    seed: int = 0,
    quantization: str | None = "int8",
) -> Path:
    """Weights of `size` (a key of SHAPES) in `folder`, to be loaded by faster-whisper; returns `folder`.

    `tokenizer_from` is a folder of any multilingual Whisper model for CTranslate2: its tokenizer.json and
    vocabulary.json are taken. `chain` is how many words a decode says when nothing is forced (1..224).
    `quantization` is CTranslate2's name for how the weights are stored, None for float32. As int8, large-v3 takes 1.6
    GB on the disk, and twice that in memory while it is made. A folder that already holds the same is left as it is,
    one with other synthetic weights is replaced. It appears whole or not at all.
    Raises InvalidInput for parameters outside these ranges, and where `folder` holds anything else.
    """
    if size not in SHAPES:
        raise InvalidInput(f"no synthetic weights of size {size!r}; there are {', '.join(SHAPES)}")
    if not 1 <= chain <= MAX_CHAIN:
        raise InvalidInput(f"a chain has 1 to {MAX_CHAIN} words, not {chain}")
    vocabulary = json.loads((tokenizer_from / "vocabulary.json").read_text(encoding="utf-8"))
    if "<|transcribe|>" not in vocabulary:
        raise InvalidInput(f"the vocabulary in {tokenizer_from} is not that of a multilingual Whisper model")
    tokenizer = (tokenizer_from / "tokenizer.json").read_text(encoding="utf-8")
    if SHAPES[size].cantonese and CANTONESE not in vocabulary:
        vocabulary, tokenizer = _with_cantonese(vocabulary, tokenizer)
    ids = {token: i for i, token in enumerate(vocabulary)}
    synthetic = Synthetic(size, seed, quantization, _chain(vocabulary, chain), ids["<|endoftext|>"])
    if _finished(folder, synthetic):
        return folder
    if folder.exists() and any(folder.iterdir()) and not (folder / MANIFEST).exists():
        raise InvalidInput(f"{folder} holds something else than synthetic weights; give another folder")

    spec = _spec(synthetic, vocabulary, ids)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}.") as parent:
        draft = Path(parent) / folder.name
        draft.mkdir()
        spec.save(str(draft))
        (draft / "tokenizer.json").write_text(tokenizer, encoding="utf-8")
        (draft / "preprocessor_config.json").write_text(json.dumps({"feature_size": SHAPES[size].n_mels}))
        (draft / MANIFEST).write_text(json.dumps(asdict(synthetic)))
        _put_in_place(draft, folder, synthetic)
    return folder


def _finished(folder: Path, wanted: Synthetic) -> bool:
    try:
        return read_synthetic(folder) == wanted
    except ModelMissing:
        return False


def _put_in_place(draft: Path, folder: Path, synthetic: Synthetic) -> None:
    if (folder / MANIFEST).exists():
        folder.rename(draft.with_name("replaced"))  # goes with the temporary folder
    try:
        draft.rename(folder)
    except OSError:
        if not _finished(folder, synthetic):  # else: another process was quicker with the same
            raise


def _chain(vocabulary: Sequence[str], n_words: int) -> tuple[int, ...]:
    """The ids of the first `n_words` tokens that are whole words of 3 to 8 letters."""
    words = [i for i, token in enumerate(vocabulary) if re.fullmatch("\u0120[a-z]{3,8}", token)][:n_words]
    if len(words) < n_words:
        raise InvalidInput(f"the vocabulary has only {len(words)} whole words, too few for a chain of {n_words}")
    return tuple(words)


def _with_cantonese(vocabulary: Sequence[str], tokenizer: str) -> tuple[list[str], str]:
    """A vocabulary and its tokenizer.json with the one language more of large-v3, which moves the ids behind it."""
    at = vocabulary.index(BEFORE_CANTONESE) + 1
    content = json.loads(tokenizer)
    for token in content["added_tokens"]:
        token["id"] += token["id"] >= at
    last = next(i for i, token in enumerate(content["added_tokens"]) if token["content"] == BEFORE_CANTONESE)
    content["added_tokens"].insert(last + 1, content["added_tokens"][last] | {"id": at, "content": CANTONESE})
    entries = content["model"]["vocab"]
    content["model"]["vocab"] = {token: i + (i >= at) for token, i in entries.items()}
    return [*vocabulary[:at], CANTONESE, *vocabulary[at:]], json.dumps(content, ensure_ascii=False)


def _spec(synthetic: Synthetic, vocabulary: Sequence[str], ids: dict[str, int]) -> WhisperSpec:
    width, n_layers, n_heads, n_mels, _ = SHAPES[synthetic.size]
    random = _Random(synthetic.seed, width)
    spec = WhisperSpec(n_layers, n_heads, n_layers, n_heads)
    encoder, decoder = spec.encoder, spec.decoder

    def done(part: Any) -> None:
        """Store a part as it will be on the disk: all of large-v3 as float32 at once would be 6 GB."""
        part.validate()
        part._quantize(synthetic.quantization)

    encoder.conv1.weight, encoder.conv1.bias = random.matrix(width, n_mels, 3, scale=0.05), np.zeros(width, np.float32)
    encoder.conv2.weight, encoder.conv2.bias = random.matrix(width, width, 3, scale=0.02), np.zeros(width, np.float32)
    encoder.position_encodings.encodings = random.matrix(N_FRAMES, width, scale=0.1)
    # Small, as all that is added to a token's own state: else the chain would hang on position, prompt and audio.
    decoder.position_encodings.encodings = random.matrix(N_POSITIONS, width, scale=0.01)
    for layer in encoder.layer:
        random.block(layer, cross=False)
        done(layer)
    for layer in decoder.layer:
        random.block(layer, cross=True)
        done(layer)
    random.norm(encoder.layer_norm)
    random.norm(decoder.layer_norm)

    # The released models use one matrix for both; a chain needs two, which costs memory (20 to 130 MB), not time.
    decoder.embeddings.weight, decoder.projection.weight = _linked(synthetic, ids, random)
    decoder.projection.bias = np.zeros(len(ids), np.float32)
    for part in (encoder.conv1, encoder.conv2, encoder.position_encodings, encoder.layer_norm):
        done(part)
    for part in (decoder.embeddings, decoder.projection, decoder.position_encodings, decoder.layer_norm):
        done(part)

    spec.register_vocabulary(list(vocabulary))
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids["\u0120"]]  # not the end: a decode of no words is allowed
    spec.config.lang_ids = list(range(ids["<|startoftranscript|>"] + 1, ids["<|translate|>"]))
    spec.config.alignment_heads = [(n_layers // 2, head) for head in range(n_heads)]
    spec.validate()
    return spec


def _linked(synthetic: Synthetic, ids: dict[str, int], random: _Random) -> tuple[Matrix, Matrix]:
    """Embeddings and output projection, each [tokens, width], such that every token's state points at its successor.

    Random vectors of this width are as good as orthogonal: the successor's logit is about the width, all others' lie
    within a few square roots of it, so temperature, beams and int8 rounding change nothing.
    """
    chain, end = list(synthetic.chain), synthetic.end
    own = random.matrix(len(ids), random.width, scale=1.0)
    elsewhere = random.matrix(random.width, scale=1.0)  # what all tokens outside the chain have in common
    embeddings = elsewhere + 0.25 * own
    embeddings[chain] = own[chain]
    embeddings[synthetic.end] = own[chain[-1]]

    projection = random.matrix(len(ids), random.width, scale=0.2)
    projection[chain[0]] = elsewhere
    projection[[*chain[1:], end]] = own[chain]
    projection[ids["<|en|>"]] = own[ids["<|startoftranscript|>"]]  # the language that is detected
    projection[ids["<|0.00|>"]] = 0.6 * elsewhere  # the first of the timestamps where one is due, below the first word
    return embeddings, projection


class _Random:
    """Fills the layers of a specification of one width with small normal weights."""

    def __init__(self, seed: int, width: int) -> None:
        self._numbers = np.random.default_rng(seed)
        self.width = width

    def matrix(self, *shape: int, scale: float) -> Matrix:
        return self._numbers.standard_normal(shape, dtype=np.float32) * np.float32(scale)

    def norm(self, layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(self.width, np.float32), np.zeros(self.width, np.float32)

    def linear(self, layer: Any, out: int, inner: int, *, gain: float = 1.0) -> None:
        layer.weight = self.matrix(out, inner, scale=gain * 0.5 / self.width**0.5)
        layer.bias = np.zeros(out, np.float32)

    def block(self, layer: Any, *, cross: bool) -> None:
        """One transformer layer; the last linear of each part is small, so that the residual wins."""
        width, small = self.width, 0.02
        self.linear(layer.self_attention.linear[0], 3 * width, width)
        self.linear(layer.self_attention.linear[1], width, width, gain=small)
        self.norm(layer.self_attention.layer_norm)
        if cross:
            self.linear(layer.attention.linear[0], width, width)
            self.linear(layer.attention.linear[1], 2 * width, width)
            self.linear(layer.attention.linear[2], width, width, gain=small)
            self.norm(layer.attention.layer_norm)
        self.linear(layer.ffn.linear_0, 4 * width, width)
        self.linear(layer.ffn.linear_1, width, 4 * width, gain=small)
        self.norm(layer.ffn.layer_norm)
