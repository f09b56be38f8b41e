"""`python -m experiments.long_memory`."""

from experiments.common.cli import command
from experiments.long_memory import suite, train


def main(config: train.Config) -> train.Result:
    """Runs one configuration, or the suite."""
    return suite.main(config) if config.suite else train.main(config)


if __name__ == "__main__":
    command(main, train.Config, train.__doc__)
