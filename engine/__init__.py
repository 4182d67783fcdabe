"""A deep-learning library on NumPy: tensors, a gradient tape, layers, optimizers, trainers. Start with README.md."""

from engine import checkpoint, ops
from engine.autograd.gradcheck import gradcheck
from engine.autograd.tape import GradientTape
from engine.autograd.tensor import Tensor
from engine.data import ImageData, TableData, batches, generator_for
from engine.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    EngineError,
    GradientError,
    SettingError,
    ShapeError,
)
from engine.evaluation.gan_metrics import FeatureStatistics, ReferenceClassifier
from engine.evaluation.metrics import accuracy, confusion_matrix
from engine.nn import initializers
from engine.nn.activations import Activation
from engine.nn.containers import Residual, Sequential
from engine.nn.convolution import Conv2D, Conv2DTranspose
from engine.nn.dropout import Dropout
from engine.nn.linear import Dense
from engine.nn.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError, balanced_class_weights
from engine.nn.normalization import BatchNorm, LayerNorm
from engine.nn.pooling import AvgPool2D, GlobalAvgPool2D, MaxPool2D, Upsample2D
from engine.nn.shape import Flatten, Reshape
from engine.optim import schedules
from engine.optim.adam import Adam, AdamW
from engine.optim.sgd import SGD
from engine.trainers.classifier import ClassifierSamples, ClassifierTrainer
from engine.trainers.early_stopping import EarlyStopping, StoppedEarly
from engine.trainers.gan import GanTrainer
from engine.trainers.gan_inputs import Latent
from engine.trainers.gan_losses import GanLoss
from engine.trainers.reports import BatchDone, EpochDone

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "AvgPool2D",
    "BatchDone",
    "BatchNorm",
    "BinaryCrossEntropy",
    "CheckpointError",
    "ClassifierSamples",
    "ClassifierTrainer",
    "Conv2D",
    "Conv2DTranspose",
    "DataError",
    "Dense",
    "DivergedError",
    "Dropout",
    "EarlyStopping",
    "EngineError",
    "EpochDone",
    "FeatureStatistics",
    "Flatten",
    "GanLoss",
    "GanTrainer",
    "GlobalAvgPool2D",
    "GradientError",
    "GradientTape",
    "ImageData",
    "Latent",
    "LayerNorm",
    "MaxPool2D",
    "ReferenceClassifier",
    "Reshape",
    "Residual",
    "Sequential",
    "SettingError",
    "ShapeError",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "StoppedEarly",
    "TableData",
    "Tensor",
    "Upsample2D",
    "accuracy",
    "balanced_class_weights",
    "batches",
    "checkpoint",
    "confusion_matrix",
    "generator_for",
    "gradcheck",
    "initializers",
    "ops",
    "schedules",
]
