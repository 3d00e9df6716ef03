"""The other defences of Table II, a file each: how they make the images and labels that a classifier is trained on."""

from rvs_tf.defenses.adv_interp import AdvInterp
from rvs_tf.defenses.adv_vertex import AdvVertex
from rvs_tf.defenses.bilateral import Bilateral
from rvs_tf.defenses.featscatter import FeatScatter
from rvs_tf.defenses.trades import Trades

DEFENSES = (AdvInterp, AdvVertex, Bilateral, FeatScatter, Trades)
