"""`python -m experiments.long_memory`."""

from experiments.common.cli import command
from experiments.long_memory import train

command(train.main, train.Config, train.__doc__)
