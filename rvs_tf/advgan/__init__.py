"""AdvGAN, an attack that is trained: its training, its networks, and its checkpoints as an attack."""
