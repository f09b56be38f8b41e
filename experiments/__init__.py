"""Experiments: one a file, each a command (`python -m experiments.char_lm --help`)."""
