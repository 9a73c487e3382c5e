"""A folder of images, one subfolder a class -> arrays."""

from pathlib import Path

import numpy as np

from helpers.base import extras
from helpers.base.errors import InputError, LabError

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp")


def load_folder(folder, size=224, unreadable="refuse"):
    """Every image under `folder`/<class>/, cropped to its central square and resized: uint8 (n, size, size, 3),
    labels int64 (n,), class names in the order of the alphabet, names of the files skipped.

    Grey images get three equal channels; what is transparent becomes white. unreadable: "refuse" or "skip" files
    that are not whole images. Raises InputError, naming the folder or file.
    """
    folder = Path(folder)
    if unreadable not in ("refuse", "skip"):
        raise InputError(f"unreadable={unreadable!r} must be 'refuse' or 'skip'.")
    if not folder.is_dir():
        raise InputError(f"folder {folder} does not exist: give one that holds a subfolder of images for each class.")
    found = {
        sub.name: sorted(path for path in sub.iterdir() if path.suffix.lower() in SUFFIXES)
        for sub in sorted(folder.iterdir(), key=lambda sub: sub.name)  # by letters alone: Windows ignores their case
        if sub.is_dir() and not sub.name.startswith(".")
    }
    found = {name: paths for name, paths in found.items() if paths}
    if len(found) < 2:
        raise InputError(
            f"folder {folder} holds images of {len(found)} class(es), {', '.join(found) or 'none'}: "
            "it must hold at least 2 subfolders of images, one a class."
        )
    pictures, labels, skipped = [], [], []
    for label, paths in enumerate(found.values()):
        for path in paths:
            try:
                pictures.append(_square(path, size))
                labels.append(label)
            except LabError:
                raise
            except Exception as error:  # Pillow raises many kinds for damaged files, odd EXIF and huge pictures
                if unreadable == "refuse":
                    raise InputError(
                        f"image {path} cannot be read ({error}): mend or remove it, or set unreadable='skip'."
                    ) from error
                skipped.append(str(path.relative_to(folder)))
    missing = sorted(set(range(len(found))) - set(labels))
    if missing:
        raise InputError(f"folder {folder} has no readable image of class {list(found)[missing[0]]!r}.")
    return np.stack(pictures), np.array(labels, "int64"), tuple(found), skipped


def _square(path, size):
    with extras.needed("a folder of images"):
        from PIL import Image, ImageOps
    with Image.open(path) as image:
        image = ImageOps.exif_transpose(image)  # a phone writes down how it was held
        if image.mode.startswith("I"):  # 16 bits, of which Pillow would cut off all above 255
            image = Image.fromarray((np.asarray(image, np.float64) / 257).round().clip(0, 255).astype(np.uint8))
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        image = image.convert("RGB")
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return np.asarray(image.resize((size, size), Image.Resampling.BILINEAR, box=(left, top, left + side, top + side)))
