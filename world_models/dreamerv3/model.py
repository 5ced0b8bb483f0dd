"""The world model: embedding, recurrent state-space model, decoders, reward and continue heads; and its losses.

| given | embedding | reconstruction loss |
|---|---|---|
| features | normalisation, symlog, `patches`, one linear layer or three normed ones | squared error of symlog, summed |
| pixels | four convolutions | squared error from 0 to 1, summed |
| proprioception | symlog, three normed layers | squared error of symlog, summed |

`target` says which of features and pixels are reconstructed; with "none" nothing is, and the latent is kept from
collapsing by redundancy reduction against the embedding (R2-Dreamer, arXiv 2603.18202). Pixels that no convolutions
embed, since the agent sees features or a tail makes them of frames, are drawn at `target_size`.
"""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from world_models import patches
from world_models.distributions import symlog
from world_models.dreamerv3.config import DEPTHS, DreamerV3Config
from world_models.dreamerv3.nets import MLP, NORMS, ConvDecoder, ConvEncoder, Linear
from world_models.dreamerv3.rssm import RSSM, State
from world_models.dreamerv3.strided import StridedDecoder, StridedEncoder
from world_models.dreamerv3.two_hot import TWO_HOTS
from world_models.feature_norm import FeatureNorm
from world_models.frames import averaged
from world_models.precision import products
from world_models.types import ActionSpec, Obs, ObsShapes, Tail

BARLOW_OFF_DIAGONAL = 5e-4  # weight of what the dimensions of a latent share, beside that of what each should say


def image_encoder(
    shape: tuple[int, int, int], config: DreamerV3Config, generator: Generator
) -> ConvEncoder | StridedEncoder:
    """The convolutions of `config.convolutions`."""
    depth = config.widths.depth
    if config.convolutions == "strided":
        return StridedEncoder(shape, depth, generator)
    return ConvEncoder(shape, tuple(depth * multiple for multiple in DEPTHS), generator)


def image_decoder(
    shape: tuple[int, int, int], config: DreamerV3Config, generator: Generator
) -> ConvDecoder | StridedDecoder:
    """Their counterpart."""
    w, stoch = config.widths, config.latents * config.widths.classes
    if config.convolutions == "strided":
        return StridedDecoder(shape, w.deter + stoch, w.depth, generator)
    depths = tuple(w.depth * multiple for multiple in DEPTHS)
    return ConvDecoder(shape, w.deter, stoch, w.units, config.blocks, depths, generator)


class Embedder(nn.Module):
    """What an observation says, (*, E): its parts one after the other."""

    def __init__(self, shapes: ObsShapes, config: DreamerV3Config, generator: Generator, tail: Tail | None):
        super().__init__()
        w, units = config.widths, config.widths.coder_units
        state_encoder = partial(MLP, units=units, layers=w.coder_layers, generator=generator, norm=config.norm)
        self.shapes, self.tail, self.symlog = shapes, tail, config.symlog
        self.pixels: ConvEncoder | StridedEncoder | None = None
        self.outputs = 0
        shape = shapes.feature if tail is None else tail.feature_shape
        if shape is not None:
            self.feature_norm = FeatureNorm(shape[-1], config.feature_norm)
            self.patches = patches.front(config.patches, shape, config.patch_dim, generator)
            inputs = self.patches.outputs
            linear = NORMS[config.norm][1](inputs, units, generator) if config.front_end == "linear" else None
            self.feature = state_encoder(inputs) if linear is None else linear
            if linear is not None:  # no norm follows: it begins as if nothing were scaled
                linear.weight.data /= self.patches.scale
            self.outputs += units
        if shapes.pixels is not None and not shapes.drawn_only and tail is None:
            self.pixels = image_encoder(shapes.pixels, config, generator)
            self.outputs += self.pixels.outputs
        if shapes.proprio is not None:
            self.proprio = state_encoder(shapes.proprio)
            self.outputs += units

    def parts(self, obs: Obs, *, learn: bool = False) -> dict[str, Tensor]:
        """What is read of `obs`, shapes checked: feature (*, *feature), normalised, pixels (*, H, W, 3), proprio.

        Of a tail the feature is what it gives, with its gradient. `learn` moves a running normalisation first.
        """
        lead = obs.is_first.shape
        found: dict[str, Tensor] = {}
        for name in ("feature", "pixels", "proprio"):
            shape = getattr(self.shapes, name)
            if shape is None:
                continue
            wanted = (*lead, *((shape,) if name == "proprio" else (1, *shape)))
            value = getattr(obs, name)
            if value is None or value.shape != wanted:
                raise ValueError(f"{name} of shape {None if value is None else tuple(value.shape)}, expected {wanted}")
            found[name] = value if name == "proprio" else value.squeeze(len(lead))
        if self.tail is not None:
            held = found["feature" if self.shapes.feature else "pixels"]
            found["feature"] = self.tail(held.flatten(0, len(lead) - 1)).unflatten(0, lead)
        if "feature" in found:
            if learn:
                self.feature_norm.observe(found["feature"])
            found["feature"] = self.feature_norm(found["feature"])
        return found

    def forward(self, parts: dict[str, Tensor]) -> Tensor:
        """(*, E) of parts (*, ...)."""
        embedded = []
        if "feature" in parts:
            embedded.append(self.feature(self.patches(self.squash(parts["feature"]))))
        if self.pixels is not None:
            pixels = parts["pixels"]
            embedded.append(self.pixels(pixels.flatten(0, -4)).unflatten(0, pixels.shape[:-3]))
        if "proprio" in parts:
            embedded.append(self.proprio(self.squash(parts["proprio"])))
        return torch.cat(embedded, -1)

    def squash(self, x: Tensor) -> Tensor:
        """symlog(x), or x where symlog is switched off."""
        return symlog(x.float()) if self.symlog else x.float()


class PatchDecoder(nn.Module):
    """Latents (N, L) to a feature of patches (N, P, F): what all share, a word for each place, one layer, one map."""

    def __init__(self, inputs: int, shape: tuple[int, ...], config: DreamerV3Config, generator: Generator):
        super().__init__()
        (count, numbers), units = shape, config.widths.coder_units
        self.shared = MLP(inputs, units, config.widths.coder_layers - 1, generator, out=units, norm=config.norm)
        self.places = nn.Parameter(torch.empty(count, units).normal_(0, 0.02, generator=generator))
        self.each = MLP(units, units, 1, generator, out=numbers, norm=config.norm)

    def forward(self, latent: Tensor) -> Tensor:
        return self.each(self.shared(latent).unsqueeze(-2) + self.places)


class WorldModel(nn.Module):
    """Everything that learns from replayed sequences; actor and critic stand beside it."""

    def __init__(
        self,
        shapes: ObsShapes,
        action: ActionSpec,
        config: DreamerV3Config,
        generator: Generator,
        tail: Tail | None = None,
    ):
        super().__init__()
        w = config.widths
        if tail is not None and config.target in ("auto", "feature"):
            raise ValueError(f"target={config.target}: with a tail, which learns, it must be pixels or none")
        self.config = config
        self.embedding = Embedder(shapes, config, generator, tail)
        self.rssm = RSSM(self.embedding.outputs, action.dim, config, generator)
        latent = self.rssm.features
        head = partial(MLP, latent, w.units, w.head_layers, generator, norm=config.norm)
        self.reward = head(out=config.bins, scale=0.0)
        self.cont = head(out=1)
        self.decoders = self._decoders(shapes, generator)
        self.projection = None
        if config.target == "none":
            self.projection = Linear(latent, self.embedding.outputs, generator)
        self.two_hot = TWO_HOTS[config.two_hot](config.bins)

    def _decoders(self, shapes: ObsShapes, generator: Generator) -> nn.ModuleDict:
        config, w, latent = self.config, self.config.widths, self.rssm.features
        state_decoder = partial(MLP, latent, w.coder_units, w.coder_layers, generator, norm=config.norm)
        found: dict[str, nn.Module] = {}
        if shapes.feature is not None and config.target in ("auto", "feature"):
            flat = len(shapes.feature) == 1
            found["feature"] = (
                state_decoder(out=shapes.feature[0])
                if flat
                else PatchDecoder(latent, shapes.feature, config, generator)
            )
        if shapes.pixels is not None and config.target in ("auto", "pixels"):
            size = config.target_size
            shape = (size, size, 3) if self.embedding.pixels is None else shapes.pixels
            found["pixels"] = image_decoder(shape, config, generator)
        if shapes.proprio is not None and config.target != "none":
            found["proprio"] = state_decoder(out=shapes.proprio)
        return nn.ModuleDict(found)

    def decode(self, state: State) -> dict[str, Tensor]:
        """Reconstructions (N, ...) of states (N, ...): pixels from 0 to 1, the rest as `squash` gives it."""
        latent = state.features()
        return {
            name: decoder(*state) if name == "pixels" else decoder(latent) for name, decoder in self.decoders.items()
        }

    def pictures(self, latent: Tensor) -> Tensor:
        """Images (N, height, width, 3) uint8 of latents (N, D + SK)."""
        drawn = self.decoders["pixels"](*latent.tensor_split([self.config.widths.deter], -1))
        return drawn.clamp(0, 1).mul(255).round().byte()  # a decoder may go beyond what a picture can show

    def kl(self, left: Tensor, right: Tensor) -> Tensor:
        """KL(left ‖ right) (*,) of logits (*, SK), unimix in both, summed over latents."""
        p, q = self.rssm.log_probs(left), self.rssm.log_probs(right)
        return (p.exp() * (p - q)).sum((-1, -2))

    def losses(
        self,
        parts: dict[str, Tensor],
        embed: Tensor,
        state: State,
        posterior: Tensor,
        reward: Tensor,
        terminal: Tensor,
    ) -> dict[str, Tensor]:
        """Every loss as (T, B); equations 4 and 5 of arXiv 2301.04104v2."""
        free = self.config.free_bits
        lead = reward.shape
        prior = self.rssm.prior(state.deter)  # (T, B, SK)
        found = {
            "dynamics": self.kl(posterior.detach(), prior).clamp(min=free),
            "representation": self.kl(posterior, prior.detach()).clamp(min=free),
        }
        for name, output in self.decode(state.flat()).items():
            wanted = parts[name].flatten(0, 1)
            if name == "pixels":
                wanted = averaged(wanted, *output.shape[1:3]).float().div(255)
            else:
                wanted = self.embedding.squash(wanted)
            found[name] = (output - wanted).square().flatten(1).sum(-1).view(lead)
        latent = state.features()
        if self.projection is not None:
            found["barlow"] = barlow_twins(self.projection(latent).flatten(0, 1), embed.detach().flatten(0, 1)).expand(
                lead
            )
        found["reward"] = self.two_hot.loss(self.reward(latent), reward)
        cont = self.cont(latent).squeeze(-1)
        found["continue"] = F.binary_cross_entropy_with_logits(cont, 1 - terminal, reduction="none")
        return found

    def weights(self) -> dict[str, float]:
        """The weight of each of `losses`."""
        config = self.config
        found = {"dynamics": config.dynamics, "representation": config.representation, "reward": 1.0, "continue": 1.0}
        found |= dict.fromkeys(self.decoders.keys(), config.reconstruction)
        return found | ({"barlow": config.barlow} if self.projection is not None else {})

    def predicted_feature(self, latent: Tensor) -> Tensor:
        """(*, D + SK) to (*, F) as `target_feature`; only where features are reconstructed."""
        found = self.decoders["feature"](latent.flatten(0, -2)).unflatten(0, latent.shape[:-1])
        return found if found.dim() == latent.dim() else found.mean(-2)

    def target_feature(self, parts: dict[str, Tensor]) -> Tensor:
        """What the decoder of features learns, (*, F); of patches (*, P, F) the mean."""
        found = self.embedding.squash(parts["feature"])
        return found if len(self.embedding.shapes.feature or ()) == 1 else found.mean(-2)

    def predicted_reward(self, latent: Tensor) -> Tensor:
        """(*, D + SK) to (*,)."""
        return self.two_hot.mean(self.reward(latent))

    def predicted_continue(self, latent: Tensor) -> Tensor:
        """The probability (*,) that the episode goes on."""
        return torch.sigmoid(self.cont(latent).squeeze(-1))


def barlow_twins(latent: Tensor, target: Tensor) -> Tensor:
    """Redundancy reduction (Zbontar et al. 2021, arXiv 2103.03230) between two views (N, E) of the same moments."""
    one, two = ((x - x.mean(0)) / (x.std(0) + 1e-8) for x in (latent, target))
    with products(latent.device, "float32"):  # a loss
        correlation = one.t() @ two / len(one)
    diagonal = correlation.diagonal()
    apart = correlation.square().sum() - diagonal.square().sum()
    return (diagonal - 1).square().sum() + BARLOW_OFF_DIAGONAL * apart
