"""Write pvr_zoo/data/costs.json: parameters and FLOPs of every registered encoder, counted on the meta device.

    python tools/make_costs.py

Parameters are those of the whole published encoder, used for its default feature. FLOPs are those of one frame
(`pvr_zoo.catalogue.count_flops`).
"""

import json

import pvr_zoo
from pvr_zoo.catalogue import COSTS, count_flops, count_parameters
from pvr_zoo.specs import EncoderSpec


def cost(row: EncoderSpec) -> dict[str, int]:
    """Parameters and FLOPs of one encoder."""
    return {"parameters": count_parameters(row), "flops": count_flops(row)}


def main() -> None:
    """Every row; controls too, since they have the cost of what they control for."""
    rows = {name: cost(pvr_zoo.spec(name)) for name in pvr_zoo.list_encoders()}
    COSTS.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in sorted(rows.items())) + "\n}\n")


if __name__ == "__main__":
    main()
