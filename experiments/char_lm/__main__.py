"""`python -m experiments.char_lm`."""

from experiments.char_lm import train
from experiments.common.cli import command

command(train.main, train.Config, train.__doc__, {"strong": train.STRONG})
