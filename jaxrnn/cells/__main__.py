"""Prints the table of all cells, or writes it into a file.

python -m jaxrnn.cells                    prints it
python -m jaxrnn.cells README.md          puts it between its marks in the file, or at its end
"""

import sys
from pathlib import Path

from jaxrnn import _catalogue


def main(arguments: list[str]) -> int:
    """Returns the status of the process."""
    if len(arguments) > 1 or any(argument.startswith("-") for argument in arguments):
        print(__doc__)
        return 2
    text = _catalogue.table()
    if not arguments:
        print(text)
        return 0
    changed = _catalogue.write(Path(arguments[0]), text)
    print(f"{arguments[0]}: {'written' if changed else 'already so'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
