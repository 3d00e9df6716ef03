"""Defense-GAN: a GAN, a predictor that replaces its input by what the GAN can make, an attack in latent space."""

from rvs_tf.defense_gan.gan import GAN, load_gan
from rvs_tf.defense_gan.latent import run_latent
from rvs_tf.defense_gan.purified import Purified
from rvs_tf.defense_gan.reconstruction import Reconstruction, reconstruct

__all__ = ["GAN", "Purified", "Reconstruction", "load_gan", "reconstruct", "run_latent"]
