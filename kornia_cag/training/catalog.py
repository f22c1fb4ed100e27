"""What each recipe is for, in one line. Apart from the recipes, so that ``--help`` can list them without torch."""

PURPOSES = {
    "digits": "handwritten digits from a font's; brings its own glyphs",
    "signs": "close crops of traffic signs and other flat signs, as a detector finds them; needs --objects",
    "hardened-signs": "signs whose surroundings an adversary may paint; needs --objects",
    "photo-digits": "digits over photographs that they invert, as in MNIST-M; best with --contexts",
    "paper-digits": "digits as in the paper; brings its own glyphs",
    "paper-signs": "signs as in the paper; needs --objects",
}
