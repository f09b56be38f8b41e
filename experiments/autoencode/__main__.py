"""`python -m experiments.autoencode`."""

from experiments.autoencode import train
from experiments.common.cli import command

command(train.main, train.Config, train.__doc__)
