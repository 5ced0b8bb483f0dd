"""Moving bodies built larger or smaller in dm_control, and not only drawn so, as by the factor `size`.

    with recorded() as seen:
        env = suite.load("walker", "walk")
    sizes = Sizes(env.physics.model.ptr, *seen[-1])
    sizes.apply(1.2)                                   # before the episode begins

MuJoCo compiles the task's own XML with the sizes of all moving geoms scaled, and what it computed replaces the numbers
of the model that runs: masses (where the XML gives none) and inertia follow by its own rules. Joints and motors stay
where and as they are: limbs that reach from joint to joint grow thicker, other bodies in all directions. The study
scales "all geometry sizes" and does not say more.
"""

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

_FIELDS = (  # of the model, all that a geom's size decides
    *("geom_size", "geom_rbound", "geom_aabb", "bvh_aabb"),
    *("body_mass", "body_inertia", "body_ipos", "body_iquat", "body_sameframe", "body_subtreemass", "body_invweight0"),
    *("dof_M0", "dof_invweight0", "dof_length", "actuator_acc0", "tendon_invweight0", "cam_poscom0", "light_poscom0"),
)


@contextmanager
def recorded() -> Iterator[list[tuple[str, Mapping[str, bytes]]]]:
    """The (XML, assets) that dm_control compiles inside, in a list that fills."""
    from dm_control.mujoco import Physics

    own, seen = Physics.__dict__["from_xml_string"], []

    def compiled(cls: Any, xml_string: str | bytes, assets: Mapping[str, bytes] | None = None) -> Any:
        text = xml_string.decode() if isinstance(xml_string, bytes) else xml_string
        seen.append((text, assets or {}))
        return own.__func__(cls, xml_string, assets)

    Physics.from_xml_string = classmethod(compiled)
    try:
        yield seen
    finally:
        Physics.from_xml_string = own


class Sizes:
    """The sizes of one compiled model (`mujoco.MjModel`), changed in place; `gain` is the present one."""

    def __init__(self, model: Any, xml: str, assets: Mapping[str, bytes]) -> None:
        self._model, self._xml, self._assets = model, xml, assets
        self._own = {name: getattr(model, name).copy() for name in _FIELDS}
        self.gain = 1.0

    def apply(self, gain: float) -> None:
        """Give moving geoms `gain` times the task's own sizes; at 1 the model is the task's own bit for bit."""
        if gain == self.gain:
            return
        for name, value in (self._own if gain == 1 else self._compiled(gain)).items():
            getattr(self._model, name)[...] = value
        self.gain = gain

    def _compiled(self, gain: float) -> dict[str, NDArray]:
        import mujoco

        texts = {name.removeprefix("./"): data for name, data in self._assets.items() if name.endswith(".xml")}
        others = {name: data for name, data in self._assets.items() if not name.endswith(".xml")}
        spec = mujoco.MjSpec.from_string(self._xml, include=texts, assets=others)
        for body in spec.bodies:
            for geom in body.geoms if body.name != "world" else ():
                geom.size = gain * np.asarray(geom.size)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "compiler attribute", UserWarning)  # about the suite's own XML
            model = spec.compile()
        return {name: getattr(model, name).copy() for name in _FIELDS}
