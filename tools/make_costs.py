"""Write pvr_zoo/data/costs.json: parameters and FLOPs of every registered encoder, counted on the meta device.

    python tools/make_costs.py

Parameters are those of the whole published encoder, used for its default feature. FLOPs are those of one frame: two for
each multiplication with its addition, products and convolutions alone (torch.utils.flop_counter).
"""

import json

import torch
from torch.utils.flop_counter import FlopCounterMode

import pvr_zoo
from pvr_zoo.catalogue import COSTS
from pvr_zoo.network import build
from pvr_zoo.specs import EncoderSpec


def cost(row: EncoderSpec) -> dict[str, int]:
    """Parameters and FLOPs of one encoder."""
    network = build(row, None).eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        network(torch.empty(1, 3, row.input_size, row.input_size, device="meta"))
    return {"parameters": sum(p.numel() for p in network.parameters()), "flops": counter.get_total_flops()}


def main() -> None:
    """Every row; controls too, since they have the cost of what they control for."""
    rows = {name: cost(pvr_zoo.spec(name)) for name in pvr_zoo.list_encoders()}
    COSTS.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(rows.items())) + "\n}\n")


if __name__ == "__main__":
    main()
