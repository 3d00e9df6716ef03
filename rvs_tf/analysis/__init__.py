"""What the perturbations of an RvS run do to the classifier's features: Figures 3 and 4 of the paper."""
