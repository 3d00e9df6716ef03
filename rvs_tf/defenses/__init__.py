"""The other defences of Table II and beside it, a file each: how they make what a classifier is trained on."""

from rvs_tf.defenses.adt import ADTExp, ADTExpAM, ADTImpAM
from rvs_tf.defenses.adv_interp import AdvInterp
from rvs_tf.defenses.adv_vertex import AdvVertex
from rvs_tf.defenses.bilateral import Bilateral
from rvs_tf.defenses.direct import Direct
from rvs_tf.defenses.featscatter import FeatScatter
from rvs_tf.defenses.gat import GAT
from rvs_tf.defenses.l2l import L2L
from rvs_tf.defenses.l2l_da import L2LDA
from rvs_tf.defenses.learn2perturb import Learn2Perturb
from rvs_tf.defenses.trades import Trades

DEFENSES = (
    *(ADTExp, ADTExpAM, ADTImpAM, AdvInterp, AdvVertex, Bilateral, Direct, FeatScatter),
    *(GAT, L2L, L2LDA, Learn2Perturb, Trades),
)
