"""Networks: wide residual networks and the layers that they are made of."""
