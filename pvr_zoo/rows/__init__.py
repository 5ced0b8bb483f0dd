"""The encoders that come with the zoo, as data, one module for each family. No torch here.

SHA-256 sums of url sources were compared over at least three unrelated public records of the same file (the torchvision
ones also start with the digits in the file's name). The hub repositories without one are not pinned: see WeightsSource.
"""

from pvr_zoo.rows import autoencoders, controls, resnets, vits

__all__ = ["autoencoders", "controls", "resnets", "vits"]
