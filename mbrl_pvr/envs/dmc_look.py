"""How a look is drawn in dm_control. Colours and floor textures go into the model's textures and materials, everything
else into the drawn scene (`mujoco.MjvScene`), which MuJoCo fills anew for every frame: physics never sees any of it.

    paint = Paint(model)                               # remembers the original colours
    for texture in paint.apply(look):                  # says which textures must be sent to OpenGL
        mujoco.mjr_uploadTexture(model, context, texture)
    shift_scene(model, data, scene, look, step)        # after mjv_updateScene, before mjr_render
    sky = sky_mask(model, depth)                       # where a video shows in its place
"""

from itertools import islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mbrl_pvr.envs.distractors import flying
from mbrl_pvr.envs.factors import PALETTE
from mbrl_pvr.envs.shifts import Look, palettes, rotation
from mbrl_pvr.envs.textures import texture

_AGENT_MATERIALS = ("self", "effector", "skin")  # `skin` is the dog's
_BACKGROUND_TEXTURES = ("skybox", "background")  # `background` is the wall behind manipulator and stacker
_GRADIENT_TOP = np.array([0.4, 0.6, 0.8])  # of the suite's skybox; it fades to black
_MARK = 255  # the skybox's stars
_SKY_FROM = 0.55  # of the far plane: the sky is drawn beyond 0.577 (a cube in the far sphere), everything else nearer


class Paint:
    """Paints one compiled dm_control model (`mujoco.MjModel`) in place, from its original colours each time."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._rgba = model.mat_rgba.copy()
        self._agent = _ids(model, "material", _AGENT_MATERIALS)
        self._floor = {i: _texels(model, i).copy() for i in _ids(model, "texture", ("grid",)).values()}
        self._sky = {i: _texels(model, i).copy() for i in _ids(model, "texture", _BACKGROUND_TEXTURES).values()}
        self._applied = Look()

    def apply(self, look: Look) -> list[int]:
        """Change the model's colours to a look's; the ids of the textures that changed."""
        changed = []
        now, before = ({f: one.palette(f) for f in PALETTE} for one in (look, self._applied))
        tiles, tiles_before = (one.choice("textures") for one in (look, self._applied))
        if now["agent"] != before["agent"]:
            self._paint_agent(*now["agent"])
        if (now["floor"], tiles) != (before["floor"], tiles_before):
            for i, original in self._floor.items():
                _texels(self._model, i)[...] = _tiled(_checker(original, *now["floor"]), *tiles)
                changed.append(i)
        if now["background"] != before["background"]:
            for i, original in self._sky.items():
                _texels(self._model, i)[...] = _sky(original, *now["background"])
                changed.append(i)
        self._applied = look
        return changed

    def _paint_agent(self, family: str, index: int, severity: float) -> None:
        self._model.mat_rgba[:] = self._rgba
        if family == "none":
            return
        target = palettes(family)[index].agent
        own = self._rgba[self._agent["self"], :3]
        for i in self._agent.values():
            original = self._rgba[i, :3]
            textured = np.all(original == 1)  # a white material only tints its texture
            aim = target if textured else np.clip(target + original - own, 0, 1)  # parts keep their contrast
            self._model.mat_rgba[i, :3] = (1 - severity) * original + severity * aim


def shift_scene(model: Any, data: Any, scene: Any, look: Look, step: int) -> None:
    """Change what will be drawn of one frame: `scene` is a filled `mujoco.MjvScene`, `step` the agent step it shows."""
    if look.has("size"):
        _scale(model, scene, *look.numbers("size"))
    _shift_lights(scene, look)
    if look.has("distractors"):  # before the camera moves: they are part of the scene
        _add_distractors(data, scene, look.draws["distractors"].index, look.strength("distractors"), step)
    if look.has("camera_pose"):
        _turn_camera(data, scene, *np.deg2rad(look.numbers("camera_pose")))
    if look.has("camera_fov"):
        (gain,) = look.numbers("camera_fov")
        for camera in scene.camera:
            for name in ("frustum_bottom", "frustum_top", "frustum_width", "frustum_center"):
                setattr(camera, name, gain * getattr(camera, name))


def sky_mask(model: Any, depth: NDArray) -> NDArray:
    """Where only sky is seen, (H, W) bool, from the depth buffer (H, W) in 0..1."""
    ratio = model.vis.map.znear / model.vis.map.zfar
    return depth >= (1 - ratio / _SKY_FROM) / (1 - ratio)


def _scale(model: Any, scene: Any, gain: float) -> None:
    import mujoco

    for geom in scene.geoms[: scene.ngeom]:
        if geom.objtype == mujoco.mjtObj.mjOBJ_GEOM and model.geom_bodyid[geom.objid] != 0:
            geom.size[:] *= gain


def _shift_lights(scene: Any, look: Look) -> None:
    for light in scene.lights[: scene.nlight]:
        if look.has("light_color"):
            gains = np.array(look.numbers("light_color"))
            for part in (light.ambient, light.diffuse, light.specular):
                part[:] *= gains
        if look.has("light_direction"):
            angle, tilt = np.deg2rad(look.numbers("light_direction"))
            light.dir[:] = rotation(_level(angle), tilt) @ light.dir
        if look.has("light_position") and not light.headlight:
            angle, distance = look.numbers("light_position")
            height = abs(float(light.pos[2])) or 1.0
            aim = light.pos + height * light.dir
            light.pos[:] += height * distance * _level(np.deg2rad(angle))
            light.dir[:] = (aim - light.pos) / np.linalg.norm(aim - light.pos)
        if look.has("shadows") and light.castshadow:
            (part,) = look.numbers("shadows")
            light.ambient[:] += 0.5 * part * light.diffuse
            light.diffuse[:] *= 1 - part


def _turn_camera(data: Any, scene: Any, sideways: float, up: float, roll: float) -> None:
    """About the point of the view's axis that is as far as the bodies are; both eyes of the stereo pair alike."""
    centre, forward, upright, distance = _view(data, scene)
    right = np.cross(forward, upright)
    turn = rotation(upright, sideways) @ rotation(right, -up)
    pivot = centre + distance * forward
    for camera in scene.camera:
        camera.pos[:] = pivot + turn @ (camera.pos - pivot)
        camera.forward[:] = turn @ forward
        camera.up[:] = rotation(turn @ forward, roll) @ turn @ upright


def _add_distractors(data: Any, scene: Any, index: int, strength: float, step: int) -> None:
    """Somewhat nearer than the task's bodies, as many as the scene has room for."""
    import mujoco

    centre, forward, upright, distance = _view(data, scene)
    right = np.cross(forward, upright)
    half = distance * (scene.camera[0].frustum_top - scene.camera[0].frustum_bottom) / 2 / scene.camera[0].frustum_near
    kinds = {"sphere": mujoco.mjtGeom.mjGEOM_SPHERE, "box": mujoco.mjtGeom.mjGEOM_BOX}
    for body in islice(flying(index, step), scene.maxgeom - scene.ngeom):
        pos = centre + body.near * (distance * forward + half * (body.across * right + body.high * upright))
        turn = rotation(upright, body.turn) @ np.stack([right, upright, -forward], axis=1)
        size = strength * half * body.half_sizes
        scene.ngeom += 1
        geom, kind = scene.geoms[scene.ngeom - 1], kinds.get(body.shape, mujoco.mjtGeom.mjGEOM_ELLIPSOID)
        mujoco.mjv_initGeom(geom, kind, size, pos, turn.ravel(), np.append(body.colour, 1).astype(np.float32))


def _view(data: Any, scene: Any) -> tuple[NDArray, NDArray, NDArray, float]:
    """The camera's place, forward and up, and how far along its axis the bodies are."""
    eyes = scene.camera
    centre = (eyes[0].pos.astype(float) + eyes[1].pos) / 2
    forward, upright = eyes[0].forward.astype(float), eyes[0].up.astype(float)
    return centre, forward, upright, max(float((data.subtree_com[0] - centre) @ forward), 0.05)


def _level(angle: float) -> NDArray:
    return np.array([np.cos(angle), np.sin(angle), 0.0])


def _ids(model: Any, kind: str, names: tuple[str, ...]) -> dict[str, int]:
    import mujoco

    code = {"material": mujoco.mjtObj.mjOBJ_MATERIAL, "texture": mujoco.mjtObj.mjOBJ_TEXTURE}[kind]
    found = {name: mujoco.mj_name2id(model, code, name) for name in names}
    return {name: i for name, i in found.items() if i >= 0}


def _texels(model: Any, texture: int) -> NDArray:
    """A view (H, W, 3) uint8 into the model."""
    start, height, width = model.tex_adr[texture], model.tex_height[texture], model.tex_width[texture]
    return model.tex_data[start : start + height * width * 3].reshape(height, width, 3)


def _checker(original: NDArray, family: str, index: int, severity: float) -> NDArray:
    """The darker of the checker's two colours becomes floor[0], the lighter floor[1]."""
    if family == "none":
        return original
    bright = original.sum(-1, dtype=np.int32)
    light = bright > bright.min()
    first, second = original[~light][0], original[light][0]
    aim = palettes(family)[index].floor * 255
    mixed = [(1 - severity) * old + severity * new for old, new in zip((first, second), aim, strict=True)]
    return np.where(light[..., None], *(np.round(c).astype(np.uint8) for c in reversed(mixed)))


def _tiled(floor: NDArray, index: int, strength: float) -> NDArray:
    """A floor (H, W, 3) with texture `index` mixed in."""
    if strength == 0:
        return floor
    tile = texture(index)
    rows, columns = (np.arange(n) * len(tile) // n for n in floor.shape[:2])
    return np.round((1 - strength) * floor + strength * tile[rows[:, None], columns]).astype(np.uint8)


def _sky(original: NDArray, family: str, index: int, severity: float) -> NDArray:
    """The gradient keeps its shape and its stars: height is read from the blue channel, the colour looked up."""
    if family == "none":
        return original
    level = np.arange(256) / (255 * _GRADIENT_TOP[2])  # 1 at the zenith
    colour = (1 - severity) * _GRADIENT_TOP + severity * palettes(family)[index].background
    table = np.clip(np.round(255 * level[:, None] * colour), 0, 255).astype(np.uint8)
    table[_MARK] = _MARK
    return np.take(table, original[..., 2], axis=0)
