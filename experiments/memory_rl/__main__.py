"""`python -m experiments.memory_rl`."""

import sys

from experiments.common.cli import UserError, parse
from experiments.memory_rl import train

try:
    train.main(parse(train.Config, sys.argv[1:], train.__doc__))
except UserError as error:
    sys.exit(f"error: {error}")
