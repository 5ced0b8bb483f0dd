"""The README's way to add an encoder, run as it is written."""

import re
from pathlib import Path

import pytest
import torch

import pvr_zoo
from pvr_zoo import registry


def test_the_page_that_adds_an_encoder_works(tmp_path: Path, frames: torch.Tensor) -> None:
    page = (Path(pvr_zoo.__file__).parent / "README.md").read_text()
    [block] = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    exec(compile(block, "README.md", "exec"), {})
    try:
        assert "mylab_resnet50" in pvr_zoo.list_encoders("mylab*")
        assert pvr_zoo.spec("mylab_resnet50").groups.sequential
        with pytest.raises(pvr_zoo.WeightsUnavailable, match=r"mylab_resnet50\.pth"):
            pvr_zoo.create("mylab_resnet50")
        network = pvr_zoo.create("random_resnet50", input_size=32).network
        names = {"stem.0": "conv1", "stem.1": "bn1", **{f"levels.{k}": f"layer{k + 1}" for k in range(4)}}
        state = {"module.head.bias": torch.zeros(3)}
        for key, value in network.state_dict().items():
            old = next(old for old in names if key.startswith(old))
            state[f"module.encoder.{names[old]}{key.removeprefix(old)}"] = value
        torch.save({"state_dict": state}, tmp_path / "mylab_resnet50.pth")
        encoder = pvr_zoo.create("mylab_resnet50", weights=tmp_path / "mylab_resnet50.pth", input_size=32)
        wanted = pvr_zoo.create("random_resnet50", input_size=32)(frames)
        torch.testing.assert_close(encoder(frames), wanted, atol=1e-5, rtol=1e-5)
    finally:
        registry.unregister("mylab_resnet50")
