"""How a look is drawn in ManiSkill: colours of arm and objects, table and ground, lights, camera, for one frame.

    shift = ManiSkillLook()
    shift.reset(sim)                                   # the simulator has built a scene
    with shift.shown(look, camera, step):
        camera.take_picture()
        frame = camera.get_picture("Color")            # inside, since this is what waits for the picture

Everything is as it was afterwards, so that neither physics nor another scene, with which SAPIEN may share materials,
sees a shift. Materials have linear colours, textures and palettes those of the screen.
"""

import colorsys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.distractors import Body, flying
from mbrl_pvr.envs.shifts import Look, changed, palettes
from mbrl_pvr.envs.textures import recoloured, tiled

_FLOORS = ("table-workspace", "ground")  # SAPIEN's names of the table and of what it stands on
_MARKERS = ("goal", "target")  # how names of what only marks a goal begin
_NEAR = 0.15  # metres from the camera: as far as distractors fly at most; the gripper's fingers are at 0.1
_GAMMA = 2.2  # of the simulator's pictures
_COLOURLESS = 0.1  # saturation
_METAL = 0.5  # pegs and slots, whose colour is what they mirror
_SIDE = 1024  # texels along a side of a changed texture at most

Changes = list[tuple[Any, str, Any]]


class _Paint(NamedTuple):
    """A material of one colour, and that colour (4,)."""

    material: Any
    own: NDArray


class ManiSkillLook:
    """Shifts the drawing of one simulator, scene after scene."""

    def __init__(self) -> None:
        self._own: dict[str, NDArray] = {}  # (H, W, 4) uint8: the simulator's textures of table and ground
        self._covers: dict[str, tuple[Any, Any]] = {}  # name -> what is shown, and the texture that shows it
        self._flying: tuple[tuple[int, float], list[Any]] = (0, 0.0), []  # which distractors are built, and the bodies

    def reset(self, sim: Any) -> None:
        """Look up what the simulator has just built (`mani_skill`'s `BaseEnv` with one scene)."""
        actors = sim.scene.actors
        self._flying = (0, 0.0), []  # the last ones are gone with their scene
        self._scene = sim.scene.sub_scenes[0]
        self._lights = [c for entity in self._scene.entities for c in entity.components if _is_light(c)]
        self._arm = [_Paint(m, _colour(m)) for link in sim.agent.robot.links for m in _materials(link)]
        self._floors = {name: next(_materials(actors[name])) for name in _FLOORS if name in actors}
        things = [a for name, a in actors.items() if name not in _FLOORS and not name.startswith(_MARKERS)]
        self._moving, self._standing = (
            [_Paint(m, _colour(m)) for a in things if (a.px_body_type == "dynamic") == moves for m in _materials(a)]
            for moves in (True, False)
        )

    @contextmanager
    def shown(self, look: Look, camera: Any, step: int) -> Iterator[None]:
        """Pictures that `camera` (`sapien`'s component) takes and hands out inside show this look at an agent step."""
        changes: Changes = []
        if look.has("agent"):
            family, index, strength = look.palette("agent")
            aim = palettes(family)[index].agent ** _GAMMA
            light = max(paint.own[:3].mean() for paint in self._arm)
            for material, own in self._arm:  # parts keep their contrast
                rgb = (1 - strength) * own[:3] + strength * aim * own[:3].mean() / light
                changes.append((material, "base_color", [*rgb, own[3]]))
        if look.has("tint"):
            turn, lighter, moving, standing, amount = look.numbers("tint")
            for paints, hue in ((self._moving, moving), (self._standing, standing)):
                for material, own in paints:
                    rgb = tinted(own[:3] ** (1 / _GAMMA), turn, lighter, hue, amount) ** _GAMMA
                    changes.append((material, "base_color", [*rgb, own[3]]))
        changes += self._covered(look)
        changes += self._lit(look)
        if look.has("distractors"):  # before the camera moves: they are part of the scene
            changes += self._fly(camera, *look.choice("distractors"), step)
        if look.has("camera_pose"):
            changes.append((camera, "local_pose", _turned(camera.local_pose, *look.numbers("camera_pose"))))
        with changed(changes), _zoomed(camera, *look.numbers("camera_fov")):
            yield

    def _fly(self, camera: Any, index: int, strength: float, step: int) -> Changes:
        """The distractors at their places of this step, to be seen for one frame; to physics they are nothing."""
        from sapien import Pose

        side = np.tan(camera.fovy / 2)
        if self._flying[0] != (index, strength):
            for entity, _ in self._flying[1]:
                self._scene.remove_entity(entity)
            built = [_body(body, strength * _NEAR * side) for body in flying(index, 0)]
            for entity, _ in built:
                self._scene.add_entity(entity)
            self._flying = (index, strength), built
        changes: Changes = []
        for (entity, drawn), body in zip(self._flying[1], flying(index, step), strict=True):
            place = _NEAR * body.near * np.array([1.0, -side * body.across, side * body.high])
            entity.set_pose(camera.global_pose * Pose(place, _quaternion(np.array([0.0, 0.0, 1.0]), body.turn)))
            changes.append((drawn, "visibility", 1.0))
        return changes

    def _covered(self, look: Look) -> Changes:
        """Table and ground in other colours, or under a texture."""
        wanted = (look.palette("floor"), look.choice("textures"))
        if not (look.has("floor") or look.has("textures")):
            return []
        changes = []
        for name, material in self._floors.items():
            if self._covers.get(name, (None, None))[0] != wanted:
                self._covers[name] = (wanted, self._cover(name, material.base_color_texture, *wanted))
            changes.append((material, "base_color_texture", self._covers[name][1]))
        return changes

    def _cover(self, name: str, own: Any, palette: tuple[str, int, float], tiles: tuple[int, float]) -> Any:
        from sapien.render import RenderTexture2D

        if name not in self._own:
            step = -(-own.width // _SIDE)
            self._own[name] = own.download()[::step, ::step]
        pixels = self._own[name].copy()
        family, index, strength = palette
        if strength > 0:
            pixels[..., :3] = recoloured(pixels[..., :3], palettes(family)[index].floor, strength)
        pixels[..., :3] = tiled(pixels[..., :3], *tiles)
        return RenderTexture2D(pixels, own.format, own.mipmap_levels, own.filter_mode, own.address_mode, own.is_srgb)

    def _lit(self, look: Look) -> Changes:
        changes: Changes = []
        if look.has("light_color"):
            gains = np.array(look.numbers("light_color"))
            changes += [(light, "color", gains * light.color) for light in self._lights]
            system = self._scene.render_system
            changes.append((system, "ambient_light", gains * system.ambient_light))
        if look.has("light_direction"):
            from sapien import Pose

            angle, tilt = np.deg2rad(look.numbers("light_direction"))
            turn = Pose(q=_quaternion(np.array([np.cos(angle), np.sin(angle), 0.0]), tilt))  # about a level axis
            for light in self._lights:  # they shine along the x axis of their pose
                own = light.entity_pose
                changes.append((light, "local_pose", Pose(q=(own.inv() * turn * own).q) * light.local_pose))
        return changes


def tinted(rgb: NDArray, turn: float, lighter: float, hue: float, amount: float) -> NDArray:
    """A colour (3,) in 0..1 with its hue turned by degrees, then mixed with white, or black where `lighter` < 0.

    A colourless one takes `hue` instead, in degrees, with a saturation of `amount`.
    """
    own, saturation, value = colorsys.rgb_to_hsv(*rgb)
    if saturation < _COLOURLESS:
        own, saturation, turn = hue / 360, max(saturation, amount), 0.0
    new = np.array(colorsys.hsv_to_rgb((own + turn / 360) % 1, saturation, value))
    return (1 - abs(lighter)) * new + max(lighter, 0.0)


def _body(body: Body, half: float) -> tuple[Any, Any]:
    """A distractor and what draws it, hidden; a box where it is no sphere. `half` is half the view's height."""
    from sapien import Entity
    from sapien.render import RenderBodyComponent, RenderMaterial, RenderShapeBox, RenderShapeSphere

    material, sizes = RenderMaterial(base_color=[*body.colour**_GAMMA, 1.0]), half * body.half_sizes
    drawn, entity = RenderBodyComponent(), Entity()
    drawn.attach(RenderShapeSphere(sizes[0], material) if body.shape == "sphere" else RenderShapeBox(sizes, material))
    drawn.visibility = 0.0
    entity.add_component(drawn)
    return entity, drawn


def _materials(body: Any) -> Iterator[Any]:
    """What an actor or a link is drawn with, without metals and, of objects, photographs."""
    from sapien.render import RenderBodyComponent

    for thing in body._objs:
        component = getattr(thing, "entity", thing).find_component_by_type(RenderBodyComponent)
        for shape in component.render_shapes if component else ():
            for part in getattr(shape, "parts", None) or (shape,):
                if part.material.metallic < _METAL and (body.name in _FLOORS or not part.material.base_color_texture):
                    yield part.material


def _colour(material: Any) -> NDArray:
    return np.array(material.base_color, float)


def _is_light(component: Any) -> bool:
    from sapien.render import RenderDirectionalLightComponent

    return isinstance(component, RenderDirectionalLightComponent)


def _turned(own: Any, sideways: float, up: float, roll: float) -> Any:
    """A camera's pose, turned where it is mounted: moved aside, one at the wrist is soon inside the hand or a wall. It
    looks along x, its left is y, z is up in the picture.
    """
    from sapien import Pose

    across, rise, tilt = (np.deg2rad(angle) for angle in (sideways, up, roll))
    forward, left, upright = np.eye(3)
    turn = Pose(q=_quaternion(upright, across)) * Pose(q=_quaternion(left, rise))
    return own * turn * Pose(q=_quaternion(forward, tilt))


def _quaternion(axis: NDArray, angle: float) -> list[float]:
    """w, x, y, z of a turn about an axis of length 1 by an angle in radians."""
    return [np.cos(angle / 2), *(np.sin(angle / 2) * axis)]


@contextmanager
def _zoomed(camera: Any, gain: float) -> Iterator[None]:
    """A camera whose view is `gain` times as wide."""
    own = camera.fx, camera.fy
    try:
        if gain != 1:
            camera.set_focal_lengths(own[0] / gain, own[1] / gain)
        yield
    finally:
        if gain != 1:
            camera.set_focal_lengths(*own)
