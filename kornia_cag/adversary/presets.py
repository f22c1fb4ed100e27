"""Attacks of the literature that are :class:`PGD` with certain numbers."""

from dataclasses import replace
from typing import Any

from kornia_cag.adversary.pixels import PGD


def FGSM(*, eps: float, random_start: bool = False, **options: Any) -> PGD:
    """PGD of one step: the whole budget ``eps`` (Goodfellow et al. 2015), or 1.25 of it after a random start.

    ``eps`` is in units of [0, 1]; ``options`` are further fields of :class:`PGD`. Source of 1.25: Wong et al. 2020.
    """
    attack = PGD(**{"eps": eps, "steps": 1, "random_start": random_start, **options})
    return _with_alpha(attack, 1.25 if random_start else 1.0)


def BIM(*, eps: float, steps: int = 10, **options: Any) -> PGD:
    """PGD from the image itself (Kurakin et al. 2017): ``steps`` steps within ``eps``, in units of [0, 1].

    ``options`` are further fields of :class:`PGD`.
    """
    return PGD(**{"eps": eps, "steps": steps, "random_start": False, **options})


def MIFGSM(*, eps: float, steps: int = 10, momentum: float = 1.0, **options: Any) -> PGD:
    """:func:`BIM` with momentum, by steps of ``eps / steps`` (Dong et al. 2018), whose images fool other models, too.

    ``options`` are further fields of :class:`PGD`.
    """
    return _with_alpha(BIM(**{"eps": eps, "steps": steps, "momentum": momentum, **options}), 1 / steps)


def _with_alpha(attack: PGD, share: float) -> PGD:
    """The attack by steps of this share of its larger budget, unless its step was given."""
    return attack if attack.alpha is not None else replace(attack, alpha=share * attack.largest)
