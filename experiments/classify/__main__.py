"""`python -m experiments.classify`."""

from experiments.classify import train
from experiments.common.cli import command

command(train.main, train.Config, train.__doc__)
