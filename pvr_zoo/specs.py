"""What is known about an encoder without building it: plain data, no torch.

`EncoderSpec` is one row of the registry together with a request (truncation, feature, norm, input size). Consumers
read the spec and never look at the name. The file is `specs`, not `spec`: `pvr_zoo.spec` is the function.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pvr_zoo.errors import SpecError

NORMS = ("keep", "none")
TRAINABLE = ("lora", "all")  # beside a number of levels
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_MAX_INPUT = 2048


@dataclass(frozen=True)
class Transform:
    """From a uint8 frame to the network's input: short side to `resize`, centre crop to `crop`, then (v − mean) / std.

    With `squash` both sides go to `resize`, whatever the frame's aspect. v is the pixel value mapped from 0..255 to
    `value_range`. Interpolation works on integers like Pillow's, as in the published evaluation transforms.
    """

    resize: int
    crop: int
    kernel: str = "bilinear"  # or "bicubic"
    antialias: bool = True
    squash: bool = False
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    value_range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        assert self.kernel in ("bilinear", "bicubic"), self.kernel
        assert 0 < self.crop <= self.resize, (self.crop, self.resize)

    def at(self, size: int) -> "Transform":
        """The same transform for another input size; the share of the picture that the crop keeps stays the same."""
        return self if size == self.crop else replace(self, resize=round(self.resize * size / self.crop), crop=size)

    def describe(self) -> str:
        numbers = ",".join(f"{v:g}" for v in (*self.mean, *self.std, *self.value_range))
        kernel = self.kernel + ("+antialias" if self.antialias else "")
        side = "both" if self.squash else "short"
        return f"{side}={self.resize} {kernel} crop={self.crop} mean,std,range={numbers}"


@dataclass(frozen=True)
class WeightsSource:
    """Where published weights lie, and what they must hash to.

    Exactly one of `url`, `hub` and `package` is set. Without a `sha256` a hub file is still compared with the content
    hash that the hub names it by, and the hash and commit that were used go into the encoder's identity.
    """

    url: str = ""
    hub: str = ""  # Hugging Face repository
    file: str = "model.safetensors"  # within the hub repository
    revision: str = "main"  # of the hub repository
    package: str = ""  # file shipped with pvr_zoo, relative to the package
    sha256: str = ""
    command: str = ""  # how to make the file, for errors

    def __post_init__(self) -> None:
        assert sum(map(bool, (self.url, self.hub, self.package))) == 1, self
        assert not self.sha256 or len(self.sha256) == 64, self.sha256

    @property
    def filename(self) -> str:
        return (self.url or self.package or self.file).rsplit("/", 1)[-1]

    @property
    def address(self) -> str:
        if self.hub:
            return f"https://huggingface.co/{self.hub}/resolve/{self.revision}/{self.file}"
        return self.url or f"pvr_zoo/{self.package}"


@dataclass(frozen=True)
class Layout:
    """How a checkpoint wraps the network's own key names."""

    top: tuple[str, ...] = ()  # keys under which the weights may be nested
    prefix: tuple[str, ...] = ()  # what every key that is not dropped begins with, one after the other
    optional: tuple[str, ...] = ()  # the same of files that come with and without it
    drop: tuple[str, ...] = ()  # what is not part of the encoder (heads, decoders), by the start of its key
    says: tuple[tuple[str, str], ...] = ()  # text beside the weights: where it is there, it must say this


@dataclass(frozen=True)
class Groups:
    """The property groups of the study (arXiv 2411.10175, Table 3)."""

    objective: str
    data: str
    backbone: str
    language: bool = False
    sequential: bool = False
    diverse: bool = False


@dataclass(frozen=True)
class EncoderSpec:
    """One encoder and one way to use it.

    The last four fields are the request; on a registry row they hold the defaults. `layers` are the levels (stages of a
    ResNet, blocks of a ViT) after which the feature is taken, concatenated where there are several; what lies beyond
    the last is cut off. `norm` says whether the network's final norm is applied to the kept tokens.

    Feature kinds: "cls" (class token), "mean" (over patches or cells), "patches" (each of them), "keypoints" (spatial
    softmax: where each channel is strongest, arXiv:1504.00702 section 5.1), and "output", which is what the published
    model returns (after its projection, pooling head or normalisation) and exists at full depth only.
    """

    name: str
    family: str
    architecture: str
    builder: (
        str  # module with bare(spec) and arrange(net, spec), and convert(state, spec) where files differ: network.py
    )
    transform: Transform
    widths: tuple[int, ...]  # channels after each stage or block
    strides: tuple[int, ...]  # pixels per feature cell after each stage or block
    features: tuple[str, ...]  # feature kinds on offer, the default first
    groups: Groups
    licence: str
    citation: str
    output: tuple[int, ...] = ()  # shape of the feature kind "output"
    output_is: str = ""  # what that is, for cards
    when_truncated: str = ""  # what of the network's end is applied to the kept levels, for cards
    unit: str = "block"  # what `truncate` counts
    input_multiple: int = 0  # the input size must be a multiple of this; 0: only the published size
    final_norm: bool = False
    channels_last: bool = False
    options: dict[str, Any] = field(default_factory=dict)  # what the family's `bare` needs beside the architecture
    positions: str = ""  # rule by which position embeddings change grid, one of those in families/vit.py
    weights: WeightsSource | None = None
    layout: Layout = field(default_factory=Layout)
    parts: tuple["EncoderSpec", ...] = ()  # encoders whose features stand side by side in this one's: families/fused.py
    seed: int | None = None  # of random weights
    layers: tuple[int, ...] = ()
    feature: str = ""
    norm: str = ""
    input_size: int = 0

    def __post_init__(self) -> None:
        assert len(self.widths) == len(self.strides) > 0, (self.widths, self.strides)
        assert ("output" in self.features) == bool(self.output), (self.name, self.features, self.output)
        assert not (self.parts and self.weights), (self.name, "parts have weights of their own")
        self._fill("layers", self.layers or (self.depth,))
        self._fill("feature", self.feature or self.offered[0])
        self._fill("norm", self.norm or ("keep" if self.final_norm else "none"))
        self._fill("input_size", self.input_size or self.transform.crop)
        self._fill("transform", self.transform.at(self.input_size))
        assert all(part.transform == self.transform for part in self.parts), (self.name, "parts see different images")

    def _fill(self, key: str, value: object) -> None:
        object.__setattr__(self, key, value)  # frozen, but these defaults depend on other fields

    @property
    def depth(self) -> int:
        return len(self.widths)

    @property
    def sources(self) -> tuple[WeightsSource, ...]:
        """Where the published weights lie: one file, one for each part, or none."""
        found = (part.weights for part in self.parts or (self,))
        return tuple(source for source in found if source is not None)

    @property
    def truncate(self) -> int:
        """Levels kept."""
        return self.layers[-1]

    @property
    def offered(self) -> tuple[str, ...]:
        """The feature kinds that these layers have, the default first."""
        whole = self.layers == (self.depth,)
        return tuple(kind for kind in self.features if whole or kind != "output")

    @property
    def feature_shape(self) -> tuple[int, ...]:
        if self.feature == "output":
            return self.output
        width = sum(self.widths[layer - 1] for layer in self.layers)
        if self.feature == "patches":
            return (self.grid(self.truncate) ** 2, width)
        return (2 * width,) if self.feature == "keypoints" else (width,)

    def grid(self, layer: int) -> int:
        """Side of the square feature map after `layer` levels."""
        return -(-self.input_size // self.strides[layer - 1])

    @property
    def render_size(self) -> int:
        """Side of the smallest square frame that the transform does not enlarge."""
        return self.transform.resize

    def request(
        self,
        *,
        truncate: int | Sequence[int] | None = None,
        feature: str | None = None,
        norm: str | None = None,
        input_size: int | None = None,
        seed: int | None = None,
    ) -> "EncoderSpec":
        """This encoder used in another way; raises SpecError where it does not offer that."""
        used = self if truncate is None else replace(self, layers=self._check_layers(truncate), feature="")
        changes: dict[str, Any] = {}
        if feature is not None:
            changes["feature"] = used._check_feature(feature)
        if norm is not None:
            legal = NORMS if self.final_norm else ("none",)
            changes["norm"] = self._check_name("norm", norm, legal)
        if input_size is not None:
            changes["input_size"] = self._check_input_size(input_size)
        if seed is not None:
            changes["seed"] = self._check_seed(seed)
        used = replace(used, **changes)
        if used.feature == "patches" and len({used.grid(layer) for layer in used.layers}) > 1:
            grids = ", ".join(f"{used.grid(layer)}×{used.grid(layer)}" for layer in used.layers)
            raise SpecError(
                f"the patches of layers {list(used.layers)} of {self.name} lie on different grids: {grids}",
                hint="Concatenate layers of one grid, or take feature=mean.",
            )
        return used

    def check_takes_weights(self) -> None:
        """Raise SpecError where a file with other weights than the published ones means nothing."""
        if self.seed is not None:
            raise SpecError(f"{self.name} is random by definition", hint="Leave out weights=.")
        if self.parts:
            names = ", ".join(part.name for part in self.parts)
            raise SpecError(
                f"{self.name} is put together from {len(self.parts)} files, so that one file cannot replace them",
                hint=f"Leave out weights=, or use one of its parts with it: {names}.",
            )

    def check_trainable(self, trainable: int | str) -> None:
        """Raise SpecError where no tail of that size can be cut off to learn: see trainable.py."""
        if trainable in TRAINABLE:
            return
        if isinstance(trainable, bool) or not isinstance(trainable, int) or not 1 <= trainable <= self.truncate:
            raise SpecError(
                f"trainable={trainable!r} is not possible: {self.name} is used with {self.truncate} {self.unit}s",
                hint=f"Give a whole number from 1 to {self.truncate}, or one of: {', '.join(TRAINABLE)}.",
            )
        if self.layers[0] <= self.truncate - trainable:
            raise SpecError(
                f"trainable={trainable} of {self.name} leaves layer {self.layers[0]} frozen, whose feature is wanted",
                hint=f"Train more {self.unit}s, or take the feature from the last one alone.",
            )

    def _check_layers(self, truncate: int | Sequence[int]) -> tuple[int, ...]:
        layers = (truncate,) if isinstance(truncate, int) or not isinstance(truncate, Sequence) else tuple(truncate)
        whole = all(isinstance(layer, int) and not isinstance(layer, bool) for layer in layers)
        if not layers or not whole or min(layers) < 1 or max(layers) > self.depth or list(layers) != sorted({*layers}):
            raise SpecError(
                f"truncate={truncate!r} is not possible: {self.name} has {self.depth} {self.unit}s",
                hint=f"Give a whole number from 1 to {self.depth}, or several, rising, to concatenate their features.",
            )
        return layers

    def _check_seed(self, seed: int) -> int:
        if self.seed is None:
            raise SpecError(f"{self.name} is not random: seed={seed!r} means nothing", hint=f"Try random:{self.name}.")
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise SpecError(f"seed={seed!r} is not possible", hint="Give a whole number from 0.")
        return seed

    def _check_feature(self, feature: str) -> str:
        if feature == "output" and self.output and feature not in self.offered:
            raise SpecError(
                f"feature='output' of {self.name} is what the whole network returns, not what its layers"
                f" {list(self.layers)} do",
                hint=f"Leave truncate out, or take one of: {', '.join(self.offered)}.",
            )
        return self._check_name("feature", feature, self.offered)

    def _check_name(self, what: str, value: str, legal: tuple[str, ...]) -> str:
        if value not in legal:
            raise SpecError(f"{self.name} has no {what}={value!r}", hint=f"It offers: {', '.join(legal)}.")
        return value

    def _check_input_size(self, size: int) -> int:
        published = self.transform.crop
        if size == published:
            return size
        whole = isinstance(size, int) and not isinstance(size, bool)
        if not self.input_multiple:
            raise SpecError(f"{self.name} works at input_size={published} only, not {size!r}")
        if not whole or size % self.input_multiple or not max(32, self.input_multiple) <= size <= _MAX_INPUT:
            raise SpecError(
                f"input_size={size!r} does not fit {self.name}",
                hint=f"Give a multiple of {self.input_multiple} from 32 to {_MAX_INPUT}; {published} is as published.",
            )
        return size
