"""`python -m experiments.forecast`."""

from experiments.common.cli import command
from experiments.forecast import train

command(train.main, train.Config, train.__doc__)
