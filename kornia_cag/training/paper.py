"""The paper's own recipes, to compare with."""

from kornia_cag.adversary.pixels import PGD
from kornia_cag.scenes.blends import Average, Hard
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.scenes.strength import Ramp
from kornia_cag.training.recipe import Recipe

# What Jin and Rinard's code does, as far as this library's ranges can express it. Differences: perspective is drawn as
# a tilt, not as displaced corners; digits are not binarised after blurring; the largest gradient in an attack's step is
# taken over the picture, not the batch; weight decay is decoupled from the gradient; digits' contexts, there grey and
# at most half as bright as ink, get there as the curriculum progresses.

PAPER_SIGNS = Recipe(
    name="paper-signs",
    size=64,
    ranges=SceneRange(
        pose=PoseRange(
            scale=(0.65, 1.05),
            aspect=(1.0, 1.0),
            angle=(-5, 5),
            shear=(-5, 5),
            translate=(-0.15, 0.15),
            perspective=(-0.33, 0.33),
        ),
        crop=(1.0, 1.0),
        color=ColorRange(
            brightness=(0.2, 1.8),
            exposure=(-0.56, 0.57),  # a factor of 0.68 to 1.48
            contrast=(0.2, 1.8),
            saturation=(0.2, 1.8),
            hue=(-18, 18),
        ),
        camera=CameraRange(blur=1.0, kinds=("box",), box=(1.0, 9.0), taps=9),
        blend=Hard(),
    ),
    reset=0.171,
    attack=PGD(eps=16 / 255, eps_object=4 / 255, steps=8, random_start=False, schedule="paper"),
    strength=Ramp(start=2, stop=160),
    images=1_290_000,
    batch_size=215,
    samples_per_class=100,
    learning_rate=1e-4,
    cosine=False,
    weight_decay=1e-4,
    ema=0.0,
    network="dcgan",
    width=128,
    procedural=100,
    kind="pixel",
)

PAPER_DIGITS = Recipe(
    name="paper-digits",
    size=28,
    ink=(255, 255, 255),
    ranges=SceneRange(
        pose=PoseRange(
            scale=(0.75, 1.05),
            aspect=(1.0, 1.0),
            angle=(-15, 15),
            shear=(-40, 40),
            translate=(-0.15, 0.15),
            perspective=(-0.33, 0.33),
        ),
        crop=(1.0, 1.0),
        color=ColorRange(brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=(0.0, 0.0)),
        context_color=ColorRange(brightness=(0.5, 0.5), contrast=(1.0, 1.0), saturation=(0.0, 0.0), hue=(0.0, 0.0)),
        camera=CameraRange(blur=1.0, kinds=("box",), box=(1.0, 5.0)),
        blend=Average(),
    ),
    reset=0.212,
    attack=PGD(eps=12.8 / 255, steps=8, random_start=False, schedule="paper"),
    strength=Ramp(start=0, stop=50),
    images=300_000,
    batch_size=50,
    samples_per_class=100,
    learning_rate=1e-4,
    cosine=False,
    weight_decay=1e-4,
    ema=0.0,
    network="two layers",
    grey=True,
    procedural=100,
    kind="pixel",
    classes="0123456789",
)
