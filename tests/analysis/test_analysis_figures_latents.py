"""The grid of pictures of latents."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg

from analysis import latents
from analysis.figures import latents as figure_of_latents


def cloud(agent, encoder, reward):
    rng = np.random.default_rng(len(encoder))
    points, rewards = rng.normal(size=(60, 4)), rng.uniform(reward - 1, reward, 60)
    return figure_of_latents.Cloud(
        f"{encoder} · {agent}", "dmc/walker-walk", points, rewards, np.arange(60) // 20, agent=agent, series=encoder
    )


def test_latents_stand_in_a_grid_of_agents_and_encoders_with_one_scale(monkeypatch):
    """Six encoders, the last of one agent alone: three stand side by side, and its place is empty."""
    monkeypatch.setattr(latents, "umap", lambda points, seed, neighbours: latents.pca(points)[0])
    made = [cloud("dreamerv3", name, 1) for name in "abcdef"] + [cloud("tdmpc2", name, 5) for name in "abcde"]
    figure = figure_of_latents.draw(made).figure
    FigureCanvasAgg(figure).draw()
    (part,) = figure.subfigs
    *panels, bar = part.axes
    grid = np.reshape(np.array(panels, object), (8, 3))  # of UMAP every other row
    shown = [[axis.get_title().partition("\n")[0] if axis.get_visible() else "" for axis in row] for row in grid[::2]]
    assert shown == [
        [f"{name} · dreamerv3" for name in "abc"],
        [f"{name} · tdmpc2" for name in "abc"],
        [f"{name} · dreamerv3" for name in "def"],
        ["d · tdmpc2", "e · tdmpc2", ""],
    ]
    sizes = {tuple(np.round(axis.get_position().size * figure.get_size_inches(), 2)) for axis in panels}
    assert len(sizes) == 1 and bar.get_ylabel() == "reward"
    low, high = bar.get_ylim()
    assert low < 0.2 and high > 4.8  # of both agents
