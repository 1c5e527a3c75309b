"""`python -m scenarios` is the command `migrc`."""

from scenarios.verbs.cli import main

main()
