"""Encoder files: a safetensors file whose header carries a JSON card that says what it is. Read without torch."""

import hashlib
import json
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

from pvr_zoo.errors import WeightsError, WeightsUnavailable
from pvr_zoo.specs import EncoderSpec

FORMAT = "pvr_zoo.encoder/1"
_MAX_HEADER = 4 << 20
_NOT_OURS = (
    "Encoder files are written by `mbrl-pvr pretrain` (pvr_zoo.save_encoder); pass other weights with weights=PATH."
)


def read_card(path: Path) -> dict[str, Any]:
    """The card in an encoder file's header; raises WeightsUnavailable or WeightsError."""
    path = path.expanduser()
    if not path.is_file():
        raise WeightsUnavailable("the encoder file does not exist", where=str(path))
    with path.open("rb") as file:
        size = file.read(8)
        length = struct.unpack("<Q", size)[0] if len(size) == 8 else 0
        header = file.read(length) if 0 < length <= _MAX_HEADER else b""
    try:
        card = json.loads(json.loads(header)["__metadata__"]["card"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WeightsError("this is no encoder file: it has no readable card", str(path), _NOT_OURS) from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise WeightsError(f"this encoder file is not of the format {FORMAT}", str(path), _NOT_OURS)
    return card


def digest(data: bytes) -> str:
    """SHA-256 of the tensors in the bytes of a safetensors file, its header left out."""
    return hashlib.sha256(data[8 + struct.unpack("<Q", data[:8])[0] :]).hexdigest()


def check_digest(path: Path) -> None:
    """Raise WeightsError where an encoder file's tensors are not those that its card was written with.

    A card without their checksum cannot say so, and is refused too.
    """
    if digest(path.read_bytes()) != read_card(path).get("tensors_sha256"):
        what = "the encoder file is damaged: its tensors are not those that it was written with"
        raise WeightsError(what, str(path), "Take it from a copy, or make it again.")


def spec_of_file(path: Path) -> EncoderSpec:
    """The spec that an encoder file's card describes; raises WeightsError where the card is wrong."""
    from pvr_zoo.rows.autoencoders import autoencoder_row

    card = read_card(path)
    checks = {"family": "autoencoder", "architecture": "conv64"}
    for key, value in checks.items():
        if card.get(key) != value:
            raise WeightsError(f"the card's {key} is {card.get(key)!r}, expected is {value!r}", str(path), _NOT_OURS)
    width, size = card.get("feature_dim"), card.get("input_size")
    if type(width) is not int or not 1 <= width <= 4096 or size != 64:
        raise WeightsError(
            f"the card's feature_dim={width!r} or input_size={size!r} is not possible", str(path), _NOT_OURS
        )
    name, licence = card.get("name"), card.get("licence")
    spec = autoencoder_row(name if isinstance(name, str) and name else path.stem, width, size)
    return replace(spec, licence=licence) if isinstance(licence, str) else spec
