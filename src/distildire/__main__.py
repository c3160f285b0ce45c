"""`python -m distildire`, and what `accelerate launch -m distildire` runs."""

from distildire.cli import main

main()
