"""`python -m experiments.speech`."""

from experiments.common.cli import command
from experiments.speech import train

command(train.main, train.Config, train.__doc__)
