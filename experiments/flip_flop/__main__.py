"""`python -m experiments.flip_flop`."""

from experiments.common.cli import command
from experiments.flip_flop import train

command(train.main, train.Config, train.__doc__)
