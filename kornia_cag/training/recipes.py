"""The recipes: what to vary, how much, and why, for cut-outs of any kind, signs, digits and streets."""

from dataclasses import replace

from kornia_cag.adversary.pixels import PGD
from kornia_cag.adversary.scenes import ScenePGD
from kornia_cag.scenes.blends import Average, Difference, Over
from kornia_cag.scenes.camera import CameraRange
from kornia_cag.scenes.choices import OneOf
from kornia_cag.scenes.edges import Feather, Smeared
from kornia_cag.scenes.framing import Framing
from kornia_cag.scenes.layout import Layout
from kornia_cag.scenes.light import ColorRange
from kornia_cag.scenes.pose import PoseRange
from kornia_cag.scenes.ranges import SceneRange
from kornia_cag.training.paper import PAPER_DIGITS, PAPER_SIGNS
from kornia_cag.training.recipe import Recipe
from kornia_cag.training.task import DetectionTask

SCENE_GRADIENT = ScenePGD(steps=1, fraction=0.5)  # the cheapest setting that pays off

CUTOUTS = Recipe(
    name="cutouts",
    size=96,  # a fifth of it still shows what an icon is
    ranges=SceneRange(
        pose=PoseRange(
            scale=(0.2, 1.0),  # from a fifth of the frame to a close-up
            aspect=(0.85, 1.18),
            angle=(-20, 20),
            shear=(-8, 8),
            translate=(-0.38, 0.38),  # anywhere in the frame; a close-up may be cut off by its edge
            perspective=(-0.2, 0.2),
        ),
        crop=(0.25, 1.0),
        color=ColorRange(
            exposure=(-1.5, 0.7),
            brightness=(0.85, 1.15),
            contrast=(0.6, 1.2),
            saturation=(0.5, 1.4),
            hue=(-8, 8),
            tint=(-0.12, 0.12),  # white balance
            veil=(0.0, 0.2),  # haze, reflections
            illumination=(-0.3, 0.3),
        ),
        object_color=ColorRange(  # lit or printed unlike what lies around it
            exposure=(-0.8, 0.4), brightness=(0.9, 1.1), contrast=(0.8, 1.1), saturation=(0.8, 1.2), hue=(-5, 5)
        ),
        camera=CameraRange(
            low_resolution=(0.0, 1.0),
            blur=0.5,
            gaussian=(0.3, 1.2),
            box=(1, 3),
            motion=(1, 4),
            noise=(0.0, 0.025),
        ),
    ),
    reset=None,  # what lies behind a small object stays in sight: an earlier object there would make the label wrong
    images=150_000,
    fit="cover",  # objects are not squeezed
    network="pooled",  # an object counts wherever it lies and however small it is
    dropout=0.2,
    procedural=512,
)

RIGID_SIGNS = SceneRange(
    pose=PoseRange(
        scale=(0.46, 0.92),  # a detector's crop: the sign with a border, half as wide as the sign for distant ones
        aspect=(0.85, 1.18),  # crops are not square, and get squeezed into a square
        angle=(-12, 12),  # poles lean
        shear=(-6, 6),
        translate=(-0.08, 0.08),
        perspective=(-0.2, 0.2),  # seen from a car
    ),
    color=ColorRange(
        exposure=(-3.5, 0.9),  # from deep shade to overexposed
        brightness=(0.9, 1.1),
        contrast=(0.5, 1.2),
        saturation=(0.2, 1.6),  # faded paint, grey days
        hue=(-10, 10),
        tint=(-0.2, 0.2),  # evening light, white balance
        veil=(0.0, 0.35),  # haze and glare
        illumination=(-0.4, 0.4),  # half in shade
    ),
    camera=CameraRange(
        low_resolution=(0.0, 1.6),  # distant signs are 15 pixels wide
        blur=0.6,
        gaussian=(0.3, 1.5),
        box=(1, 4),
        motion=(1, 6),  # a moving car
        noise=(0.0, 0.025),
    ),
)
"""The scenes of signs without deformation, which CPU loaders can also make."""

SIGNS = Recipe(
    name="signs",
    size=40,
    ranges=replace(
        RIGID_SIGNS,
        pose=replace(
            RIGID_SIGNS.pose,
            elastic=(0.0, 0.07),  # legends are narrower, smaller or placed differently on older signs
            wavelength=(1.0, 3.0),
            waves=4,
        ),
        camera=replace(RIGID_SIGNS.camera, grain=(0.0, 0.025)),  # small pictures are enlarged, including their noise
    ),
    scene_attack=SCENE_GRADIENT,  # half of the scenes are a little harder than random ones
    images=900_000,
    width=32,
    local=11,
)

SYNSIGN = replace(
    SIGNS,
    name="synsign",
    ranges=replace(SIGNS.ranges, blend=OneOf((Over(), Feather(), Smeared()))),  # no edge that gives a paste away
    reset=None,  # each sign alone on its background
    scene_attack=None,
    images=200_000,
)

HARDENED_SIGNS = replace(
    SIGNS,
    name="hardened-signs",
    ranges=replace(
        RIGID_SIGNS,
        pose=replace(RIGID_SIGNS.pose, scale=(0.7, 1.0)),  # cropped closely: less room for an adversary
        color=replace(RIGID_SIGNS.color, exposure=(-2.0, 0.6)),  # almost black signs show nothing to learn from
    ),
    reset=0.1,
    scene_attack=None,
    # Some contexts change a little, others beyond recognition. The rest stay clean; otherwise the network would learn
    # to read the label from the attack, which knows it.
    attack=PGD(eps=1.0, eps_min=8 / 255, eps_object=0.0, steps=3, alpha=0.5, random_start=False, fraction=0.7),
    images=200_000,
)

DIGITS = Recipe(
    name="digits",
    size=28,
    ink=(255, 255, 255),
    thickness=(-1, 1, 2, 3),
    ranges=SceneRange(
        pose=PoseRange(
            aspect=(0.6, 1.1),  # handwriting is narrower than fonts
            angle=(-15, 15),
            shear=(-30, 40),  # slant, more often to the right
            perspective=(-0.4, 0.4),  # one part large, another small: the bar of a 4 moves up
            elastic=(0.0, 0.25),  # no two strokes are alike
            wavelength=(1.5, 4.0),
            hole=(0.0, 0.25),  # broken strokes, such as the open top of a 4
            holes=2,
        ),
        framing=Framing(),
        context_color=ColorRange(brightness=(0.0, 0.4), contrast=(1.0, 1.0)),  # paper is darker than ink, here
        color=ColorRange(brightness=(0.7, 1.0), contrast=(1.0, 1.0)),
        camera=CameraRange(blur=0.3, gaussian=(0.3, 0.8), noise=(0.0, 0.05)),
        blend=Average(),
    ),
    reset=0.212,
    images=200_000,  # with more, the network overfits to the glyphs' exact shape
    learning_rate=2e-3,
    weight_decay=0.1,
    smoothing=0.1,
    width=32,
    grey=True,
    dropout=0.4,
    map_dropout=0.15,  # no stroke should decide alone: handwriting may omit or bend any of them
    views=9,
    classes="0123456789",
)

PHOTO_DIGITS = replace(
    DIGITS,
    name="photo-digits",
    ranges=replace(
        DIGITS.ranges,
        context_color=ColorRange(brightness=(0.6, 1.2)),
        color=ColorRange(brightness=(1.0, 1.0), contrast=(1.0, 1.0), saturation=(1.0, 1.0), hue=(0.0, 0.0)),
        blend=Difference(),  # each stroke inverts what it covers, as in MNIST-M
    ),
    reset=None,  # an earlier digit would be as visible as the one over it
    grey=False,
)

STREET = Recipe(
    name="street",
    size=192,
    ranges=SceneRange(
        layout=Layout(
            count=(0, 4),
            side=(0.06, 0.7),  # 12 to 134 pixels
            stacked=0.3,  # one pole often carries two signs
            visible=0.7,
            overlap=0.1,
            inside=0.8,
        ),
        pose=PoseRange(angle=(-10, 10), aspect=(0.8, 1.15), perspective=(-0.2, 0.2)),
        crop=(0.6, 1.0),
        color=ColorRange(
            exposure=(-2.0, 0.7),
            brightness=(0.9, 1.1),
            contrast=(0.6, 1.2),
            saturation=(0.4, 1.4),
            hue=(-8, 8),
            tint=(-0.15, 0.15),
            veil=(0.0, 0.2),
            illumination=(-0.3, 0.3),
        ),
        object_color=ColorRange(
            exposure=(-1.2, 0.4), brightness=(0.9, 1.1), contrast=(0.8, 1.1), saturation=(0.5, 1.2), hue=(-5, 5)
        ),
        camera=CUTOUTS.ranges.camera,
    ),
    detection=DetectionTask(name="sign"),
    network="detector",
    width=16,
    dropout=0.0,
    reset=None,
    images=200_000,
    batch_size=16,
    ema=0.998,
    procedural=64,
)

RECIPES = {
    recipe.name: recipe
    for recipe in (CUTOUTS, DIGITS, SIGNS, SYNSIGN, HARDENED_SIGNS, PHOTO_DIGITS, STREET, PAPER_DIGITS, PAPER_SIGNS)
}
