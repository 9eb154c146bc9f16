"""`python -m mnist_amp`, the same as the command `mnist-amp`."""

from mnist_amp.cli import main

if __name__ == "__main__":
    main()
