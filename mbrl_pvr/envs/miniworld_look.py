"""How a look is drawn in Miniworld: objects, floor, textures, lights, sky and camera, for as long as a frame takes.

    with MiniworldLook(sim).shown(look, step):
        frame = sim.render_obs(buffer)

The simulator's own attributes are as they were afterwards, so that physics never sees a shift. What it compiles into a
display list (rooms and lights) is compiled again only where the look changed.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.distractors import Body, flying
from mbrl_pvr.envs.factors import FACTORS
from mbrl_pvr.envs.shifts import Draw, Look, changed, palettes, rotation, split_indices
from mbrl_pvr.envs.textures import recoloured, tiled

_PARTS = ("wall_tex", "floor_tex", "ceil_tex")
_APART = 35  # textures of wall, floor and ceiling differ by this many, and so all are held out, or none
_MIXTURES = (("red", "yellow"), ("red", "blue"), ("green", "yellow"), ("green", "blue"))  # colours 6 to 9
_STATIC = ("floor", "textures", "light_direction", "light_color")
_OFFSET = 1.0  # Miniworld adds it to its array and gives OpenGL no fourth number: a light from (1, 3.5, 1), far away
_AHEAD = 1.5  # metres: what the camera still looks at when it is raised
_NEAR = 0.3  # metres from the camera: as far as distractors fly at most; no wall is nearer


class MiniworldLook:
    """Shifts the drawing of one simulator (`miniworld.miniworld.MiniWorldEnv`)."""

    def __init__(self, sim: Any) -> None:
        self._sim = sim
        self._painted: dict[tuple[int, str], _Painted] = {}
        self._compiled: tuple[tuple[float, Draw], ...] = ()

    def reset(self) -> None:
        """The simulator has made new rooms, and compiled them as they are."""
        self._compiled = ()

    @contextmanager
    def shown(self, look: Look, step: int) -> Iterator[None]:
        """Frames drawn inside show this look at an agent step."""
        changes: list[tuple[Any, str, Any]] = []
        if look.has("background"):
            family, index, strength = look.palette("background")
            own = np.array(self._sim.sky_color, float)
            sky = (1 - strength) * own + strength * palettes(family)[index].background
            changes.append((self._sim, "sky_color", sky))
        changes += _camera(self._sim.agent, look)
        if look.has("objects"):
            changes += [change for entity in self._sim.entities for change in _recoloured(entity, look)]
        if look.has("size"):
            changes += [change for entity in self._sim.entities for change in _scaled(entity, *look.numbers("size"))]
        if look.has("distractors"):  # about the camera before it is moved: they are part of the scene
            index, strength = look.choice("distractors")
            bodies = [_box(self._sim.agent, body, strength) for body in flying(index, step)]
            changes.append((self._sim, "entities", [*self._sim.entities, *bodies]))
        wanted = tuple((look.strength(f), look.draws[f]) for f in _STATIC if look.has(f))
        if wanted != self._compiled:
            with changed([*self._lights(look), *self._textures(look)]):
                self._sim.shadow_window.switch_to()
                self._sim._render_static()
            self._compiled = wanted
        with changed(changes):
            yield

    def _lights(self, look: Look) -> list[tuple[Any, str, Any]]:
        sim, changes = self._sim, []
        if look.has("light_color"):
            gains = np.array(look.numbers("light_color"))
            changes += [(sim, name, list(gains * getattr(sim, name))) for name in ("light_color", "light_ambient")]
        if look.has("light_direction"):
            angle, tilt = np.deg2rad(look.numbers("light_direction"))
            turn = rotation(np.array([np.cos(angle), 0.0, np.sin(angle)]), tilt)
            changes.append((sim, "light_pos", turn @ (sim.light_pos + _OFFSET) - _OFFSET))
        return changes

    def _textures(self, look: Look) -> list[tuple[Any, str, Any]]:
        colours, (index, strength) = look.palette("floor"), look.choice("textures")
        changes = []
        for room in self._sim.rooms:
            for number, part in enumerate(_PARTS):
                own, tile = getattr(room, part), ((index + _APART * number) % FACTORS["textures"].stored, strength)
                palette = colours if part == "floor_tex" and look.has("floor") else None
                if palette or look.has("textures"):
                    painted = self._painted.setdefault((id(own), part), _Painted(own))
                    painted.paint(palette, tile)
                    changes.append((room, part, painted))
        return changes


class _Painted:
    """A texture of the simulator in other colours, with one of ours mixed in."""

    def __init__(self, own: Any) -> None:
        self._own, self._id = own, None
        self._now: tuple | None = None
        self.width, self.height = own.width, own.height

    def bind(self) -> None:
        from pyglet import gl

        gl.glBindTexture(gl.GL_TEXTURE_2D, self._id)

    def paint(self, palette: tuple[str, int, float] | None, tile: tuple[int, float]) -> None:
        """Give it the floor's colours of a palette (family, index, strength), and mix a texture (index, strength) in;
        the simulator's filters and mipmaps.
        """
        if (palette, tile) == self._now:
            return
        from pyglet import gl

        if self._id is None:
            self._id = gl.GLuint()
            gl.glGenTextures(1, self._id)
        picture = _pixels(self._own)
        if palette:
            family, index, strength = palette
            picture = recoloured(picture, palettes(family)[index].floor, strength)
        picture = tiled(picture, *tile)
        self.bind()
        size, data = (self.width, self.height), np.ascontiguousarray(picture[::-1]).tobytes()  # OpenGL begins below
        gl.glPixelStorei(gl.GL_UNPACK_ALIGNMENT, 1)
        gl.glTexImage2D(gl.GL_TEXTURE_2D, 0, gl.GL_RGB, *size, 0, gl.GL_RGB, gl.GL_UNSIGNED_BYTE, data)
        gl.glGenerateMipmap(gl.GL_TEXTURE_2D)
        gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MAG_FILTER, gl.GL_LINEAR)
        gl.glTexParameteri(gl.GL_TEXTURE_2D, gl.GL_TEXTURE_MIN_FILTER, gl.GL_LINEAR_MIPMAP_LINEAR)
        gl.glBindTexture(gl.GL_TEXTURE_2D, 0)
        self._now = (palette, tile)


def _pixels(own: Any) -> NDArray:
    """The simulator's own picture of a texture, (H, W, 3) uint8."""
    from miniworld.opengl import Texture
    from PIL import Image

    path = next(path for path, cached in Texture.tex_cache.items() if cached is own)
    return np.asarray(Image.open(path).convert("RGB"))


def _camera(agent: Any, look: Look) -> list[tuple[Any, str, Any]]:
    changes = []
    if look.has("camera_pose"):
        sideways, up, _ = look.numbers("camera_pose")  # it cannot be rolled
        rise = _AHEAD * np.tan(np.deg2rad(up))
        changes = [
            (agent, "dir", agent.dir + np.deg2rad(sideways)),
            (agent, "cam_height", agent.cam_height + rise),
            (agent, "cam_pitch", agent.cam_pitch - up),
        ]
    if look.has("camera_fov"):
        (gain,) = look.numbers("camera_fov")
        half = np.tan(np.deg2rad(agent.cam_fov_y / 2))
        changes.append((agent, "cam_fov_y", float(2 * np.rad2deg(np.arctan(gain * half)))))
    return changes


def _scaled(entity: Any, gain: float) -> list[tuple[Any, str, Any]]:
    """As drawn only: for physics it has a radius and a height of its own."""
    from miniworld.entity import Box, MeshEnt

    if isinstance(entity, Box):
        return [(entity, "size", gain * entity.size)]
    if isinstance(entity, MeshEnt) and not entity.is_static:  # what stands still is compiled with the rooms
        return [(entity, "scale", gain * entity.scale)]
    return []


def _box(agent: Any, body: Body, strength: float) -> Any:
    """A distractor, whatever its shape, as a box before the camera."""
    from miniworld.entity import Box

    forward, right = agent.cam_dir, agent.right_vec
    upright, half = np.cross(right, forward), np.tan(np.deg2rad(agent.cam_fov_y / 2))
    box = Box("red", size=2 * strength * half * _NEAR * body.half_sizes)
    box.color_vec, box.dir = body.colour, body.turn
    box.pos = agent.cam_pos + body.near * _NEAR * (forward + half * (body.across * right + body.high * upright))
    box.pos = box.pos - np.array([0.0, box.size[1] / 2, 0.0])  # its place is the middle of its foot
    return box


def _recoloured(entity: Any, look: Look) -> list[tuple[Any, str, Any]]:
    """Another colour of the look's part, which follows from the object's own; objects of one colour stay of one colour,
    and none keeps its own.
    """
    from miniworld.entity import COLOR_NAMES, COLORS, Ball, Box, Key

    index, strength = look.choice("objects")
    part = next(p for p in map(_colours, ("train", "held_out")) if index in p)
    if isinstance(entity, Box):
        own = COLOR_NAMES.index(entity.color)
        new = np.mean([COLORS[name] for name in _another(own, part, index)], axis=0)
        return [(entity, "color_vec", (1 - strength) * entity.color_vec + strength * new)]
    if isinstance(entity, Ball | Key):
        kind = type(entity).__name__.lower()
        own = next(i for i, name in enumerate(COLOR_NAMES) if entity.mesh is _mesh(kind, name))
        return [(entity, "mesh", _mixed(kind, COLOR_NAMES[own], _another(own, part, index), strength))]
    return []


def _another(own: int, part: tuple[int, ...], index: int) -> tuple[str, str]:
    """The names of the two colours (or twice of one) that are mixed for an object of colour `own`."""
    from miniworld.entity import COLOR_NAMES

    others = [colour for colour in part if colour != own]
    chosen = others[(part.index(index) + own) % len(others)]
    return _MIXTURES[chosen - len(COLOR_NAMES)] if chosen >= len(COLOR_NAMES) else (COLOR_NAMES[chosen],) * 2


@cache
def _colours(split: str) -> tuple[int, ...]:
    return split_indices(split, FACTORS["objects"].stored)


@cache  # the simulator looks for the file each time
def _mesh(kind: str, colour: str) -> Any:
    from miniworld.objmesh import ObjMesh

    return ObjMesh.get(f"{kind}_{colour}")


@cache
def _mixed(kind: str, own: str, new: tuple[str, str], strength: float) -> Any:
    """A mesh on the way from a colour to the mean of two; the simulator's own at severity 0."""
    from miniworld.objmesh import ObjMesh
    from miniworld.utils import get_file_path

    if strength == 0:
        return _mesh(kind, own)
    mesh = ObjMesh(get_file_path("meshes", f"{kind}_{own}", "obj"))
    meshes = [_mesh(kind, name).vlists for name in (own, *new)]
    for mine, *vertices in zip(mesh.vlists, *meshes, strict=True):
        a, b, c = (np.array(one.colors[:]) for one in vertices)
        mine.colors[:] = ((1 - strength) * a + strength * (b + c) / 2).tolist()
    return mesh
