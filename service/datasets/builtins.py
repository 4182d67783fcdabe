"""The built-in datasets: their checksums, and where to find their files."""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.resources import files as package_files
from pathlib import Path

from service.datasets.info import (
    DATASET_NAME,
    TRAIN_IMAGES,
    TRAIN_LABELS,
    VALIDATION_IMAGES,
    VALIDATION_LABELS,
    DatasetInfo,
    content_sha256,
)
from service.states import DatasetKind

_DATA = Path(str(package_files("service.data")))
_DIGIT_CLASSIFIER = _DATA / "reference-classifier" / "mnist.safetensors"

FASHION_CLASSES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
DIGITS = tuple("0123456789")


@dataclass(frozen=True, kw_only=True)
class BuiltIn:
    """A dataset identified by checksums, and the locations besides the data folder where its files may be."""

    info: DatasetInfo
    digests: Mapping[str, str]  # SHA-256 (hex) of each unpacked IDX file
    shipped: Path | None = None  # folder inside this package
    table: Path | None = None  # a CSV file inside this package
    made_from: str | None = None  # the dataset from which it is generated on first use
    system: Path | None = None  # folder of a Debian package
    mirrors: tuple[str, ...] = ()  # base URLs of the gzipped files, tried in turn; the checksums decide
    packed_bytes: Mapping[str, int] = field(default_factory=dict)  # sizes of the gzipped files as published
    reference_classifier: Path | None = None  # trained on such images, see workers/make_reference_classifier.py


def _info(
    name: str, title: str, digests: Mapping[str, str], class_names: tuple[str, ...], source: str, licence: str
) -> DatasetInfo:
    train_count, validation_count = (8_500, 1_500) if name == "mnist-10k" else (60_000, 10_000)
    return DatasetInfo(
        name=name,
        title=title,
        image_shape=(28, 28),
        classes=10,
        train_count=train_count,
        validation_count=validation_count,
        class_names=class_names,
        source=source,
        licence=licence,
        sha256=content_sha256(digests),
        available=False,  # determined later, with the data folder
    )


def _table(name: str, title: str, source: str, licence: str) -> BuiltIn:
    """A bundled table: its file, and the facts that ``make_tables`` recorded about it."""
    folder = _DATA / name
    facts = json.loads((folder / "dataset.json").read_text("utf-8"))
    return BuiltIn(
        info=DatasetInfo(
            name=name,
            title=title,
            kind=DatasetKind.TABLE,
            image_shape=(),
            columns=tuple(facts["columns"]),
            classes=len(facts["class_names"]),
            class_names=tuple(facts["class_names"]),
            train_count=facts["train_count"],
            validation_count=facts["validation_count"],
            source=source,
            licence=licence,
            sha256=facts["sha256"],
            available=False,  # determined later, with the data folder
            report={"target": facts["target"]},
        ),
        digests={},
        table=folder / f"{name}.csv",
    )


_MNIST_10K = {
    TRAIN_IMAGES: "129834f1df07691abdd2f29dd8137747a1d9f3939582de6fa1f2fd20f94faa15",
    TRAIN_LABELS: "5004cd45596f67a9ce989edad321999783be0fa8d24f54cdcefcb42277371934",
    VALIDATION_IMAGES: "68360f9f3d5e57c9248084fd994df67fb9e644f99f72773647a9a24ea8c2ccf7",
    VALIDATION_LABELS: "773cff955d4f52734063dd2567ec88d469ee3a3479c2c711be9d4e52889831b9",
}
_MNIST = {
    TRAIN_IMAGES: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    TRAIN_LABELS: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    VALIDATION_IMAGES: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    VALIDATION_LABELS: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
_FASHION_MNIST = {
    TRAIN_IMAGES: "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    TRAIN_LABELS: "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    VALIDATION_IMAGES: "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    VALIDATION_LABELS: "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}

_STACKED_MNIST = {
    TRAIN_IMAGES: "8ebf22a50e57b3070ecd533f2553bf3e148f2ef38f4136ccb11b79ea24627570",
    TRAIN_LABELS: "c6921cec899e9734879872f3d69a8d0a2791c57bfadf5aea97a5d706036c9648",
    VALIDATION_IMAGES: "f1bc23429429d4bcac0eacb959651834767c73b852dd564225e4bfbf43859f91",
    VALIDATION_LABELS: "f794047f772c7857fdadca02566ab0757742dd6351182b41d16ba53830f83850",
}

BUILT_IN: Mapping[str, BuiltIn] = {
    "mnist-10k": BuiltIn(
        info=_info(
            "mnist-10k",
            "MNIST, ten thousand digits",
            _MNIST_10K,
            DIGITS,
            "10,000 training images of the MNIST database, shipped with this package",
            "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. J. C. Burges)",
        ),
        digests=_MNIST_10K,
        shipped=_DATA / "mnist-10k",
        reference_classifier=_DIGIT_CLASSIFIER,
    ),
    "mnist": BuiltIn(
        info=_info(
            "mnist",
            "MNIST",
            _MNIST,
            DIGITS,
            "the MNIST database of handwritten digits",
            "CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. J. C. Burges)",
        ),
        digests=_MNIST,
        mirrors=(
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        packed_bytes={
            TRAIN_IMAGES: 9_912_422,
            TRAIN_LABELS: 28_881,
            VALIDATION_IMAGES: 1_648_877,
            VALIDATION_LABELS: 4_542,
        },
        reference_classifier=_DIGIT_CLASSIFIER,
    ),
    "fashion-mnist": BuiltIn(
        info=_info(
            "fashion-mnist",
            "Fashion-MNIST",
            _FASHION_MNIST,
            FASHION_CLASSES,
            "Zalando Research, github.com/zalandoresearch/fashion-mnist",
            "MIT (Zalando SE)",
        ),
        digests=_FASHION_MNIST,
        system=Path("/usr/share/datasets/fashion-mnist"),  # Debian: dataset-fashion-mnist
        mirrors=(
            # This bucket's website supports only plain HTTP; the checksums protect the content.
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
        ),
        packed_bytes={
            TRAIN_IMAGES: 26_421_880,
            TRAIN_LABELS: 29_515,
            VALIDATION_IMAGES: 4_422_102,
            VALIDATION_LABELS: 5_148,
        },
    ),
    "iris": _table(
        "iris",
        "Iris, three species by their flowers",
        "R. A. Fisher (1936), as in scikit-learn 1.9.1",
        "BSD 3-clause (scikit-learn); CC BY 4.0 (UCI)",
    ),
    "breast-cancer": _table(
        "breast-cancer",
        "Breast cancer, benign or malignant",
        "W. H. Wolberg, W. N. Street, O. L. Mangasarian (1995), as in scikit-learn 1.9.1",
        "BSD 3-clause (scikit-learn); CC BY 4.0 (UCI)",
    ),
    "diabetes": _table(
        "diabetes",
        "Diabetes, its progression in a year",
        "B. Efron, T. Hastie, I. Johnstone, R. Tibshirani (2004), as in scikit-learn 1.9.1",
        "BSD 3-clause (scikit-learn)",
    ),
    "stacked-mnist": BuiltIn(
        info=DatasetInfo(
            name="stacked-mnist",
            title="Stacked MNIST, three digits in colour",
            image_shape=(28, 28, 3),
            classes=10,
            train_count=25_600,
            validation_count=3_000,
            class_names=DIGITS,
            source="made from mnist-10k: three digits as the red, green and blue channel of each image, "
            "1,000 modes in equal shares (Metz and others, 2017); the class is the digit in red",
            licence="CC BY-SA 3.0 (Y. LeCun, C. Cortes, C. J. C. Burges)",
            sha256=content_sha256(_STACKED_MNIST),
            available=False,  # determined later, from mnist-10k
        ),
        digests=_STACKED_MNIST,
        made_from="mnist-10k",
    ),
}


@functools.cache
def reference_classifier_sha256(name: str) -> str | None:
    """The digest of the classifier that scores samples of a dataset, if there is one."""
    builtin = BUILT_IN.get(name)
    if builtin is None or builtin.reference_classifier is None:
        return None
    return f"sha256:{hashlib.sha256(builtin.reference_classifier.read_bytes()).hexdigest()}"


def names(data_root: Path) -> list[str]:
    """The names of the built-in datasets and of the folders of ``data_root``, whether these are complete or not."""
    try:
        folders = [entry.name for entry in os.scandir(data_root) if entry.is_dir()]
    except OSError:  # missing, or no permission
        folders = []
    return sorted({*BUILT_IN, *filter(DATASET_NAME.fullmatch, folders)})
