"""`python -m unsee_dist`: the command `unsee`, where its script is not on the PATH."""

from unsee_dist.cli import main

if __name__ == "__main__":
    main()
