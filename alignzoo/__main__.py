"""`python -m alignzoo` is the same command as `alignzoo`."""

from alignzoo.cli import main

if __name__ == "__main__":
    main()
