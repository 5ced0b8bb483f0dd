"""Published evaluation transforms that several families share."""

from pvr_zoo.specs import Transform

HALF = (0.5, 0.5, 0.5)
IMAGENET = Transform(resize=256, crop=224, kernel="bilinear")  # torchvision's preset for the *_V1 weights
IMAGENET_BICUBIC = Transform(resize=256, crop=224, kernel="bicubic")  # evaluation in DINO, DINOv2 and MAE
AUGREG = Transform(resize=248, crop=224, kernel="bicubic", mean=HALF, std=HALF)  # crop share 0.9
