"""Runs the command: `python -m keras_perceiver`."""

from keras_perceiver.cli import main

if __name__ == "__main__":
    main()
