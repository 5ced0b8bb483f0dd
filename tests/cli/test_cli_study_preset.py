"""Every value of the study's preset beside its source: the paper, the code of 2023 that it used, or a stand-in.

Code: danijar/dreamerv3, commit 8fa35f8 (June 2023), `dreamerv3/configs.yaml`, defaults with its preset `dmc_vision`.
The paper (arXiv 2411.10175) gives its table of hyper-parameters as an image and says that it mostly kept them. What the
code does and no key says is named by its function. Beside the values: the code steps world model, ensemble, actors and
critics one after the other, ours takes all gradients at the weights before the update; the code's slow critic becomes
the critic at the first update, ours starts as it; the code computes in fp16, ours in fp32.
"""

from dataclasses import asdict

import pytest

from mbrl_pvr.config import load_config, to_dict
from mbrl_pvr.schema import flatten
from mbrl_pvr.settings import DreamerV3Run
from world_models.dreamerv3.config import SIZES
from world_models.dreamerv3.optimizer import BEHAVIOUR_EPS, MODEL_EPS

PAPER, CODE, STAND_IN, OURS = "paper: ", "2023 code: ", "stand-in: ", "ours: "

AGENT = {
    "name": ("dreamerv3", PAPER + "section 3"),
    "size": ("small", CODE + "dmc_vision has the values of small"),
    "deter": (None, CODE + "by size, below"),
    "hidden": (None, CODE + "by size, below"),
    "classes": (None, CODE + "by size, below"),
    "depth": (None, CODE + "by size, below"),
    "units": (None, CODE + "by size, below"),
    "layers": (None, CODE + "by size, below"),
    "head_layers": (None, CODE + "by size, below"),
    "coder_layers": (None, CODE + "by size, below"),
    "coder_units": (None, CODE + "by size, below"),
    "prior_layers": (None, CODE + "by size, below"),
    "latents": (32, CODE + "rssm.stoch"),
    "blocks": (8, OURS + "of the block-diagonal unit alone, which is not used"),
    "unimix": (0.01, CODE + "rssm.unimix, actor.unimix"),
    "bins": (255, CODE + "reward_head.bins, critic.bins; -20 to 20 in Dist"),
    "two_hot": ("symlog", CODE + "reward_head.dist and critic.dist: symlog_disc"),
    "sequence": ("dense", CODE + "RSSM._gru"),
    "initial": ("learned", CODE + "rssm.initial"),
    "norm": ("layer", CODE + "norm: layer, winit: normal, fan: avg, in every network"),
    "convolutions": ("strided", CODE + "encoder.resize: stride, cnn_blocks: 0, minres: 4, cnn_sigmoid: False"),
    "actor_scale": (1.0, CODE + "actor.outscale"),
    "front_end": ("linear", PAPER + "one linear layer"),
    "patches": ("flatten", OURS + "the study has vectors only"),
    "patch_dim": (32, OURS + "the study has vectors only"),
    "feature_norm": ("none", STAND_IN + "the paper names none"),
    "symlog": (True, PAPER + "on, but off for pretrained features in ManiSkill2"),
    "target": ("auto", PAPER + "the decoder reconstructs what is given"),
    "target_size": (64, OURS + "of frames that are reconstructed beside features"),
    "policy": (True, PAPER + "the agent learns to act"),
    "batch_size": (16, CODE + "batch_size"),
    "batch_length": (64, CODE + "batch_length"),
    "imagination": (15, CODE + "imag_horizon"),
    "discount_horizon": (333.0, CODE + "horizon"),
    "return_lambda": (0.95, CODE + "return_lambda"),
    "context": ("zero", CODE + "Generic._sample marks a sequence's first step as is_first"),
    "free_bits": (1.0, CODE + "dyn_loss.free, rep_loss.free"),
    "dynamics": (0.5, CODE + "loss_scales.dyn"),
    "representation": (0.1, CODE + "loss_scales.rep"),
    "reconstruction": (1.0, CODE + "loss_scales.image, loss_scales.vector"),
    "barlow": (0.05, OURS + "not used where something is reconstructed"),
    "replay_value": (0.0, CODE + "has no such loss"),
    "entropy": (3e-4, CODE + "actent"),
    "actor_gradient": ("dynamics", CODE + "actor_grad_cont: backprop, actor_grad_disc: reinforce"),
    "ends": ("likeliest", CODE + "WorldModel.imagine takes the mode"),
    "evaluate": ("sample", CODE + "Agent.policy draws in evaluation, too"),
    "optimizer": ("adam", CODE + "model_opt, actor_opt, critic_opt, expl_opt"),
    "lr": (1e-4, CODE + "model_opt.lr, expl_opt.lr"),
    "agc": (0.3, OURS + "of LaProp, which is not used"),
    "warmup": (1000, OURS + "of LaProp, which is not used"),
    "clip": (1000.0, CODE + "model_opt.clip"),
    "behaviour_lr": (3e-5, CODE + "actor_opt.lr, critic_opt.lr"),
    "behaviour_clip": (100.0, CODE + "actor_opt.clip, critic_opt.clip, expl_opt.clip"),
    "slow_rate": (0.02, CODE + "slow_critic_fraction, with slow_critic_update 1"),
    "return_rate": (0.01, CODE + "retnorm.decay 0.99, perclo 5, perchi 95, max 1"),
    "min_std": (0.1, CODE + "actor.minstd"),
    "max_std": (1.0, CODE + "actor.maxstd"),
    "exploration": (1.0, PAPER + "β = 1; the code's is 0.1"),
    "exploration_critics": ("separate", STAND_IN + "the code has separate critics; the paper's formula is a sum"),
    "disagreement_heads": (10, PAPER + "10; the code's are 8"),
}
WIDTHS = {
    "deter": (512, CODE + "dmc_vision, rssm.deter"),
    "hidden": (512, CODE + "dmc_vision, pattern .*\\.units reaches rssm.units"),
    "classes": (32, CODE + "rssm.classes"),
    "depth": (32, CODE + "dmc_vision, pattern .*\\.cnn_depth"),
    "units": (512, CODE + "dmc_vision, pattern .*\\.units"),
    "layers": (2, CODE + "dmc_vision, pattern .*\\.layers"),
    "head_layers": (2, CODE + "dmc_vision, pattern .*\\.layers"),
    "coder_layers": (5, CODE + "encoder.mlp_layers, decoder.mlp_layers, which the pattern does not reach"),
    "coder_units": (1024, CODE + "mlp_units, as above; as the width of the linear layer on features a stand-in"),
    "prior_layers": (1, CODE + "RSSM.img_step: img_out, img_stats"),
}
RUN = {
    "updates_per_step": (0.5, CODE + "dmc_vision, run.train_ratio 512 over 16 x 64 replayed steps"),
    "catch_up": (False, CODE + "embodied.when.Ratio begins to count at its first call, after train_fill"),
    "steps": (
        1_500_000,
        PAPER + "3 M environment steps in dm_control, counted in the simulator: a stand-in for which is meant",
    ),
    "random_steps": (1024, CODE + "run.train_fill 0: one batch"),
    "replay.capacity": (1_000_000, CODE + "replay_size"),
    "env.num": (4, CODE + "envs.amount"),
    "env.action_repeat": (2, CODE + "env.dmc.repeat"),
    "env.proprio": (False, PAPER + "no proprioception"),
    "env.shifts": ("study", STAND_IN + "colours of DMControl-GB and sizes of 0.7 to 1.3; easy or hard is not said"),
    "env.severity": (1.0, PAPER + "the benchmark's colours themselves"),
    "env.factors": (None, PAPER + "agent, floor and background, as the benchmark's entries, and sizes"),
    "env.size": (64, PAPER + "from scratch 64x64; encoders are given what they want"),
    "eval.every": (25_000, PAPER + "every 50 k environment steps, counted in the simulator: a stand-in"),
    "eval.episodes": (12, PAPER + "12 episodes"),
}
FAMILIES = {  # what is not dm_control's
    "maniskill": {
        "steps": (5_000_000, PAPER + "5 M environment steps"),
        "eval.every": (50_000, PAPER + "every 50 k environment steps"),
        "agent.symlog": (False, PAPER + "off for pretrained features in ManiSkill2"),
        "env.action_repeat": (1, STAND_IN + "not said; G_max of 200 fits 200 steps with at most 1 each"),
    },
    "miniworld": {
        "steps": (5_000_000, PAPER + "5 M environment steps"),
        "eval.every": (50_000, PAPER + "every 50 k environment steps"),
        "env.action_repeat": (1, STAND_IN + "not said"),
    },
}
EPS = {"model": (1e-8, CODE + "model_opt.eps"), "others": (1e-5, CODE + "actor_opt.eps, critic_opt.eps, expl_opt.eps")}


# Jones, Zhou, Pattinson 2025 (arXiv 2509.12531): their paper's abstract, the readme of their fork of the published code
JONES_CODE, JONES_SAID = "fork's readme: ", "second-hand: "
JONES = {
    "agent.name": ("dreamerv3", JONES_CODE + "a fork of the current published code"),
    "agent.size": ("12M", STAND_IN + "sizes are not said; the published default of ours"),
    "agent.target": ("pixels", JONES_SAID + "pixel reconstruction is kept"),
    "encoder.name": ("dinov2_vits14", STAND_IN + "enc.typ is dino or clip, which size is not said"),
    "encoder.feature": ("patches", JONES_SAID + "complete patch tokens, flattened, reach the posterior"),
    "encoder.trainable": (
        2,
        STAND_IN + "enc.finetune_layers k trains the blocks from k on; partial is best, k is not said",
    ),
    "agent.patches": ("flatten", JONES_SAID + "flattened"),
    "updates_per_step": (0.03125, JONES_CODE + "train ratio 32 in the example, over 16 x 64 replayed steps"),
    "steps": (100_000, STAND_IN + "budgets are not said"),
    "random_steps": (1024, STAND_IN + "one batch"),
    "env.shifts": ("none", STAND_IN + "severe shifts are met in the test alone: ood --shift textures"),
    "env.num": (4, STAND_IN + "as in the other study"),
    "eval.every": (25_000, STAND_IN + "as in the other study"),
    "eval.episodes": (12, STAND_IN + "as in the other study"),
}


def values(table: dict) -> dict:
    return {k: v for k, (v, _) in table.items()}


def test_every_value_of_the_study_has_a_source():
    config = load_config(["encoder=scratch"], "study")
    tree = to_dict(config)
    assert tree["agent"] == values(AGENT)
    assert asdict(config.agent.widths) == values(WIDTHS)
    run = dict(flatten(tree))
    assert {k: run[k] for k in RUN} == values(RUN)
    assert values(EPS) == {"model": MODEL_EPS, "others": BEHAVIOUR_EPS}
    for table in (AGENT, WIDTHS, RUN, EPS):
        assert all(source.startswith((PAPER, CODE, STAND_IN, OURS)) for _, source in table.values())


@pytest.mark.parametrize(("family", "task"), [("maniskill", "StackCube-v1"), ("miniworld", "PickupObjects")])
def test_families_differ_where_the_paper_says_so(family: str, task: str):
    run = dict(flatten(to_dict(load_config([f"env={family}/{task}", "encoder=embedded", "env.shifts=none"], "study"))))
    dmc = dict(flatten(to_dict(load_config(["encoder=embedded", "env.shifts=none"], "study"))))
    assert {k for k in run if run[k] != dmc[k]} - {"env.name"} == FAMILIES[family].keys()
    assert {k: run[k] for k in FAMILIES[family]} == values(FAMILIES[family])
    if family == "maniskill":  # the study's other agent; it does not choose among actions
        planner = load_config([f"env={family}/{task}", "env.shifts=none", "agent=tdmpc2"], "study")
        assert (planner.steps, planner.agent.name) == (5_000_000, "tdmpc2")
    typed = load_config([f"env={family}/{task}", "encoder=embedded", "env.shifts=none", "steps=70000"], "study")
    assert typed.steps == 70_000


def test_every_value_of_the_second_study_is_known_or_a_stand_in():
    config = load_config([], "study/jones2025")
    run = dict(flatten(to_dict(config)))
    assert {key: run[key] for key in JONES} == values(JONES)
    assert all(source.startswith((JONES_CODE, JONES_SAID, STAND_IN)) for _, source in JONES.values())
    differs = {key for key, value in flatten(to_dict(DreamerV3Run())) if run[key] != value}
    assert differs - {"env.size"} <= JONES.keys(), "what differs from the defaults is listed; frames follow the encoder"


def test_the_short_name_is_the_first_study():
    assert load_config([], "study") == load_config([], "study/schneider2024")


def test_what_is_ours_means_nothing_in_the_study():
    """Values without a counterpart in the study change nothing there: `inert` says so."""
    from mbrl_pvr.settings import inert

    config = load_config(["encoder=embedded"], "study")
    ours = {f"agent.{k}" for k, (_, source) in AGENT.items() if source.startswith(OURS)}
    vectors = {"agent.patches"}  # has one meaning only where features are vectors
    assert ours - vectors <= inert(config).keys()


@pytest.mark.parametrize("size", ["small", "medium", "large", "xlarge"])
def test_sizes_of_2023(size: str):
    deter, depth, units, layers = {
        "small": (512, 32, 512, 2),
        "medium": (1024, 48, 640, 3),
        "large": (2048, 64, 768, 4),
        "xlarge": (4096, 96, 1024, 5),
    }[size]
    w = SIZES[size]
    assert (w.deter, w.depth) == (deter, depth) and w.units == w.hidden == units and w.layers == w.head_layers == layers
    assert (w.classes, w.coder_layers, w.coder_units, w.prior_layers) == (32, 5, 1024, 1)
