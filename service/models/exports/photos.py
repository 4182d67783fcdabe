"""The preparation of photos for a network trained on image files, as Python code and as facts."""

from __future__ import annotations

import string
from dataclasses import dataclass
from typing import Final

NAME: Final = "photo_preparation"
"""The key of the facts in the metadata of a file."""

_CODE: Final = string.Template('''\
def prepare(path):
    """A photo of any size as levels ($sides), uint8, prepared as in training. Needs Pillow and NumPy."""$imports
    with Image.open(path) as image:
        $draft
        image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits
        image = Image.fromarray(np.rint(np.asarray(image, np.float32) / 257).astype(np.uint8))
    black = Image.new("RGBA", image.size, (0, 0, 0, 255))
    image = Image.alpha_composite(black, image.convert("RGBA")).convert("$mode")
    $fit
    return np.array(image$converted)
''')
_SQUARE: Final = 'image.draft("RGB", ({width}, {height}))  # a JPEG is scaled down while it is decoded'
_CROP: Final = (
    "image = ImageOps.fit(image, ({width}, {height}), Image.Resampling.BOX)  # scaled to cover, and cropped evenly"
)
_PAD: Final = 'image = ImageOps.pad(image, ({width}, {height}), Image.Resampling.BOX, color="black")  # scaled into it'
_RECTANGLE: Final = """\
is_turned = image.getexif().get(0x0112) in (5, 6, 7, 8)
        image.draft("RGB", ({height}, {width}) if is_turned else ({width}, {height}))  # of a JPEG"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhotoPreparation:
    """How image files become images of the network: as at the import of the dataset, and in ``/predict``.

    Attributes:
        converts_first: whether colours become grey before the image is scaled, and not after it.
        pads: whether black borders fill the rest of the image, instead of cropping it.
    """

    rows: int
    columns: int
    in_colour: bool
    converts_first: bool
    pads: bool = False

    @property
    def facts(self) -> dict[str, str | int]:
        """The steps, in order, for the metadata of a file."""
        grey = {"grey": f"ITU-R BT.601, {'before' if self.converts_first else 'after'} scaling"}
        return {
            "orientation": "EXIF",
            "transparency": "over black",
            **({"resize": "contain", "pad": "black"} if self.pads else {"resize": "cover", "crop": "centre"}),
            "filter": "box",
            "width": self.columns,
            "height": self.rows,
            "channels": 3 if self.in_colour else 1,
            **({} if self.in_colour else grey),
        }

    def code(self, *, imports: bool) -> str:
        """The function ``prepare``, which uses ``np``, ``Image`` and ``ImageOps``.

        Args:
            imports: whether it imports them itself.
        """
        draft = _SQUARE if self.rows == self.columns else _RECTANGLE
        return _CODE.substitute(
            sides=f"{self.rows}, {self.columns}" + (", 3" if self.in_colour else ""),
            imports="\n    import numpy as np\n    from PIL import Image, ImageOps\n" if imports else "",
            draft=draft.format(width=self.columns, height=self.rows),
            fit=(_PAD if self.pads else _CROP).format(width=self.columns, height=self.rows),
            mode="L" if self.converts_first and not self.in_colour else "RGB",
            converted="" if self.in_colour or self.converts_first else '.convert("L")',
        )
