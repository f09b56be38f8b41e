"""`python -m experiments.pronunciation`."""

from experiments.common.cli import command
from experiments.pronunciation import train

command(train.main, train.Config, train.__doc__)
