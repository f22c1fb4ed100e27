"""What each recipe is for, in one line. Apart from the recipes, so that the command can list them without torch."""

PURPOSES = {
    "cutouts": "logos, icons, parts, packages: anything flat in a photograph, from a close-up to a fifth of the frame; "
    "needs cut-outs",
    "digits": "handwritten digits from a font's; brings its own glyphs",
    "signs": "traffic signs, cropped closely as a detector finds them; needs cut-outs",
    "hardened-signs": "signs whose surroundings an adversary may paint; needs cut-outs",
    "photo-digits": "digits over photographs that they invert, as in MNIST-M; best with photographs",
    "paper-digits": "digits as in the paper; brings its own glyphs",
    "paper-signs": "signs as in the paper; needs cut-outs",
}

USUAL = "cutouts"  # the recipe of whoever names none
