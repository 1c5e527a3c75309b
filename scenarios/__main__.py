"""`python -m scenarios` is the command `migrc`."""

from scenarios.cli import main

main()
