"""Training: what a method is, natural and adversarial training, the loop and what it needs."""
