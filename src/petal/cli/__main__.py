"""`python -m petal.cli`, where the command is not on the path."""

from petal.cli import main

main()
