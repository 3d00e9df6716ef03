"""Attacks that are more than steps along a gradient: a network is trained, or another project's attack is called."""
