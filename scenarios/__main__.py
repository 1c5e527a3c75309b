"""The command `migrc`, also `python -m scenarios`.

Nothing is imported before somebody listens for Ctrl-C: imports are most of a start.
"""

from __future__ import annotations

import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command with the arguments of the process and exit with its code."""
    try:
        from scenarios.verbs.cli import main as command

        command()
    except KeyboardInterrupt:
        sys.stderr.write("migrc: interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
