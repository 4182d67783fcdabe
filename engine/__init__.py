"""A deep-learning library on NumPy: tensors, a gradient tape, layers, optimizers, trainers. Start with README.md.

The public names are those in ``__all__`` of these modules.
"""

from engine import checkpoint as checkpoint
from engine import ops as ops
from engine.autograd.gradcheck import *
from engine.autograd.tape import *
from engine.autograd.tensor import *
from engine.data import *
from engine.errors import *
from engine.evaluation.gan_metrics import *
from engine.evaluation.metrics import *
from engine.nn import initializers as initializers
from engine.nn.activations import *
from engine.nn.containers import *
from engine.nn.convolution import *
from engine.nn.dropout import *
from engine.nn.linear import *
from engine.nn.losses import *
from engine.nn.normalization import *
from engine.nn.pooling import *
from engine.nn.shape import *
from engine.optim import schedules as schedules
from engine.optim.adam import *
from engine.optim.sgd import *
from engine.trainers.classifier import *
from engine.trainers.early_stopping import *
from engine.trainers.gan import *
from engine.trainers.gan_inputs import *
from engine.trainers.gan_losses import *
from engine.trainers.regressor import *
from engine.trainers.reports import *
