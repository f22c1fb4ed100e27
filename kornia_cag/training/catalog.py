"""What each recipe is for, and what it needs. Apart from them, so that the command can list them without torch."""

from typing import NamedTuple


class About(NamedTuple):
    """A recipe in a few words."""

    purpose: str
    needs: str


CATALOG = {
    "cutouts": About(
        "logos, icons, parts, packages: anything flat in a photograph, from a close-up to a fifth of the frame",
        "cut-outs",
    ),
    "signs": About("traffic signs, cropped closely as a detector finds them", "cut-outs"),
    "synsign": About("distorted signs on backgrounds, each alone, as the SynSign data set has them", "cut-outs"),
    "hardened-signs": About("traffic signs, when somebody may paint anything around them", "cut-outs"),
    "digits": About("strokes without colour, as written by hand", "nothing: it brings its own glyphs"),
    "photo-digits": About("strokes that invert what they cover, as in MNIST-M", "nothing; best with photographs"),
    "street": About(
        "finding traffic signs, or other things of one kind, in whole photographs, each with its box", "cut-outs"
    ),
    "paper-signs": About("signs with Jin and Rinard's own numbers, to compare with", "cut-outs; a GPU is better"),
    "paper-digits": About(
        "digits with Jin and Rinard's own numbers", "nothing: it brings its own glyphs; a GPU is better"
    ),
}

USUAL = "cutouts"  # the recipe if none is named
