"""`python -m experiments.gradient_flow`, on the tasks of `experiments.long_memory`."""

from experiments.common.cli import command
from experiments.long_memory import gradient_flow

command(gradient_flow.main, gradient_flow.Config, gradient_flow.__doc__)
