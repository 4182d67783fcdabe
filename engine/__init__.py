"""A deep-learning library on NumPy: tensors, a gradient tape, layers, trainers."""

from engine import checkpoint, initializers, ops, schedules
from engine.batches import ImageData, batches, generator_for
from engine.errors import (
    CheckpointError,
    DataError,
    DivergedError,
    EngineError,
    GradientError,
    SettingError,
    ShapeError,
)
from engine.gradcheck import gradcheck
from engine.layers import Activation, Dense, Dropout, Sequential
from engine.losses import BinaryCrossEntropy, SoftmaxCrossEntropy, SquaredError
from engine.metrics import accuracy, confusion_matrix
from engine.optimizers import SGD, Adam, AdamW
from engine.tape import GradientTape
from engine.tensor import Tensor
from engine.trainers.classifier import ClassifierSamples, ClassifierTrainer
from engine.trainers.gan import GanTrainer, Latent
from engine.trainers.reports import BatchDone, EpochDone
from engine.trainers.stopping import EarlyStopping, StoppedEarly

__all__ = [
    "SGD",
    "Activation",
    "Adam",
    "AdamW",
    "BatchDone",
    "BinaryCrossEntropy",
    "CheckpointError",
    "ClassifierSamples",
    "ClassifierTrainer",
    "DataError",
    "Dense",
    "DivergedError",
    "Dropout",
    "EarlyStopping",
    "EngineError",
    "EpochDone",
    "GanTrainer",
    "GradientError",
    "GradientTape",
    "ImageData",
    "Latent",
    "Sequential",
    "SettingError",
    "ShapeError",
    "SoftmaxCrossEntropy",
    "SquaredError",
    "StoppedEarly",
    "Tensor",
    "accuracy",
    "batches",
    "checkpoint",
    "confusion_matrix",
    "generator_for",
    "gradcheck",
    "initializers",
    "ops",
    "schedules",
]
