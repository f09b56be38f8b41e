"""`python -m experiments.translation`."""

from experiments.common.cli import command
from experiments.translation import train

command(train.main, train.Config, train.__doc__, {"strong": train.STRONG})
