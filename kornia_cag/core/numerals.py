"""Numbers as people write them. Needs no torch, so the command line can use it before torch is there."""


def fraction(text: str) -> float:
    """A number, or a fraction such as ``8/255``; ValueError or ZeroDivisionError for anything else."""
    above, slash, below = text.partition("/")
    return float(above) / float(below) if slash else float(text)
