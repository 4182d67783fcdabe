"""The table of terms of machine learning, from which the Learn page, the (i) of cards and docs/glossary.md are made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from service.states import FindingCode


@dataclass(frozen=True, slots=True)
class Term:
    """A term in a few sentences, with code in backticks."""

    id: str
    """The anchor on the Learn page."""
    name: str
    text: str
    lesson: str | None = None
    """Its lesson in ``docs/learn``, without ``.md``."""
    metrics: tuple[str, ...] = ()
    """The tiles that lead to it."""
    findings: tuple[FindingCode, ...] = ()
    """The findings that lead to it."""

    @property
    def title(self) -> str:
        """The name as a heading."""
        return self.name[0].upper() + self.name[1:]


TERMS: Final = (
    Term(
        "epoch",
        "epoch",
        "One pass over all training examples. After each epoch the network is scored on the validation examples, "
        "which it never trains on, and the job stores metrics, samples and a checkpoint. More epochs fit the "
        "training examples better; the validation curve shows whether new ones are predicted better, too.",
    ),
    Term(
        "batch",
        "batch",
        "The examples of one update of the weights; `batch_size` is their number. An epoch has as many updates as "
        "batches. A small batch is cheap and its gradient is noisy; a large one gives fewer, steadier updates, "
        "and often needs a higher learning rate.",
    ),
    Term(
        "learning-rate",
        "learning rate",
        "How far one update moves the weights against the gradient: `optimizer.learning_rate`. If it is too low, "
        "the loss hardly falls; if it is too high, the loss jumps or grows, and the job diverges. Try it before "
        "other settings, in steps of a factor of three to ten.",
        "seeds",
        findings=(FindingCode.DIVERGING,),
    ),
    Term(
        "overfitting",
        "overfitting",
        "A network overfits when it learns its training examples by heart: the training loss falls on, and the "
        "validation loss stops falling or rises. More data, augmentation, dropout, weight decay, a smaller "
        "network or early stopping help. The best checkpoint is from the epoch with the best validation score.",
        "classifier",
        ("train_loss", "val_loss"),
        (FindingCode.OVERFITTING,),
    ),
    Term(
        "confusion-matrix",
        "confusion matrix",
        "The validation examples, counted by true class (rows) and predicted class (columns). Correct predictions "
        "are on the diagonal; every other cell is one kind of mistake, such as fours that were taken for nines. "
        "Two large cells opposite each other are two classes that look alike to the network.",
        "classifier",
        ("val_balanced_accuracy", "val_macro_f1"),
    ),
    Term(
        "calibration",
        "calibration",
        "Whether confidence can be trusted: of the predictions with a confidence of 80%, a calibrated classifier "
        "has 80% right. Points below the diagonal are overconfident, which is common after long training. The "
        "expected calibration error is the mean distance from the diagonal.",
        "classifier",
    ),
    Term(
        "gan",
        "GAN",
        "A generative adversarial network is a pair of networks that train against each other. The generator "
        "turns random numbers into images; the discriminator tells them from real ones, and its answer is all "
        "that the generator learns from.",
        "gan",
        ("g_loss", "d_loss"),
    ),
    Term(
        "mode-collapse",
        "mode collapse",
        "A generator has collapsed when it makes only a few of the kinds of images in the data, or one image for all "
        "inputs. Either the discriminator wins, and rejects every image with certainty: limit it, with "
        "`discriminator.r1=1`. Or the generator cannot move, and all samples are the same from the first epoch on: "
        "give it larger first weights and Adam, together.",
        "gan",
        findings=(FindingCode.MODE_COLLAPSE,),
    ),
    Term(
        "d-real-d-fake",
        "D(real) and D(fake)",
        "How real the discriminator finds real images and generated ones, from 0% to 100%; 50% means that it cannot "
        "tell. In a training in balance, D(real) is above 50% and D(fake) at 30% to 50%. Near 100% and 0%, the "
        "discriminator wins, and the generator gets no useful gradient. Both at 50% from the first epoch on mean "
        "that neither network learns.",
        "gan",
        ("d_real", "d_fake"),
        (FindingCode.DISCRIMINATOR_WINS,),
    ),
    Term(
        "sample-diversity",
        "sample diversity",
        "How much the generated images differ from each other, relative to real ones. Near 100% they vary as much "
        "as real images; below 25% for several epochs without a rise they are much alike, below 10% nearly the same "
        "image. Noise is diverse, too: look at the samples.",
        "gan",
        ("sample_diversity",),
    ),
    Term(
        "mode-coverage",
        "mode coverage",
        "The share of the classes that the samples show, as named by a reference classifier; a class counts if at "
        "least 3% of the samples show it. 10% of ten digits is one digit. It is low in the first epochs of every "
        "GAN, and is measured every `health.every_epochs` epochs.",
        "gan",
        ("mode_coverage", "min_class_share"),
    ),
    Term(
        "vanishing-gradient",
        "vanishing gradient",
        "The gradient says how to change each weight; where it is nearly zero, nothing is learned. Tiny first "
        "weights, sigmoid layers, and units that are dead or saturated shrink it on its way to the first layers. "
        "A suitable initializer (`glorot` for tanh, `he` for relu) keeps its size, and the steps of Adam do not "
        "depend on it. A lower learning rate makes it worse.",
        "tape",
        ("g_grad_norm", "d_grad_norm"),
        (FindingCode.VANISHING_GRADIENT, FindingCode.DEAD_UNITS, FindingCode.SATURATION),
    ),
    Term(
        "latent-space",
        "latent space",
        "The inputs of a generator: each image is made from one point, a list of random numbers. Points close to "
        "each other give similar images, so along a path from one point to another, one image turns into the "
        "other. The same seed gives the same points at every checkpoint.",
        "gan",
    ),
    Term(
        "frechet-distance",
        "Fréchet distance",
        "How far generated images are from real ones as a whole, in quality and variety. A reference classifier "
        "describes each image by its features; mean and covariance of these are compared between generated and "
        "real images. Lower is better. Only values of the same dataset and number of samples can be compared.",
        "gan",
        ("frechet_distance",),
    ),
    Term(
        "tape",
        "tape",
        "The list of the operations of a forward pass, in the order in which they ran. With each, it stores how "
        "the gradient of its output becomes those of its inputs. Played backwards from the loss, it gives the "
        "gradients of all weights in one sweep: backpropagation.",
        "tape",
    ),
    Term(
        "residual",
        "residual",
        "A regression predicts a number instead of a class; the residual is the difference between the true "
        "number and the predicted one, in the unit of the target. Residuals that scatter evenly around zero are "
        "noise; a curve or a funnel among them is something that the model misses.",
    ),
    Term(
        "rmse",
        "RMSE, MAE and R²",
        "Three scores of a regression. RMSE is the root of the mean squared residual, MAE the mean of the residuals "
        "without their signs; both are in the unit of the target, and RMSE weighs large errors more. R² is the "
        "fraction of the variance that is predicted, without a unit: 1 is perfect, 0 is no better than the mean.",
        metrics=("val_rmse", "val_mae", "val_r2"),
    ),
    Term(
        "confidence-interval",
        "confidence interval",
        "A score of few examples, or of few seeds, could have come out otherwise by chance. A 95% interval (95% "
        "CI) is computed so that 95 of 100 such intervals contain the true value. More examples or seeds make it "
        "narrower. If the interval of a difference contains zero, no difference is shown. That of the best epoch is "
        "optimistic, because the epoch was chosen on the same examples.",
        "seeds",
    ),
    Term(
        "seed",
        "seed",
        "The number from which all random choices of a job follow: first weights, order of the examples, noise. "
        "The same spec with the same seed gives the same result, bit for bit. Other seeds show how much of a "
        "result is chance.",
        "seeds",
    ),
    Term(
        "sweep",
        "sweep",
        "Many jobs as one experiment. A trial is one combination of settings, with a job for each seed. A rung is "
        "an epoch at which trials are compared and most of them stop.",
        "seeds",
    ),
)
BY_ID: Final = {term.id: term for term in TERMS}
BY_FINDING: Final = {code: term for term in TERMS for code in term.findings}
BY_METRIC: Final = {metric: term for term in TERMS for metric in term.metrics}
