"""The type checker of the test pass with run-time shape checks: an int may stand where a float is asked for."""

from beartype import BeartypeConf, beartype

numeric = beartype(conf=BeartypeConf(is_pep484_tower=True))
