"""Folders of images of one's own: what is read, and what is refused."""

import struct
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from helpers.base.errors import InputError
from helpers.networks import data, photos


@pytest.fixture
def folder(tmp_path):
    """Two classes of six images each, 40 x 60 pixels: reds and blues."""
    for name, colour in {"blue": (0, 0, 255), "red": (255, 0, 0)}.items():
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.new("RGB", (60, 40), colour).save(tmp_path / name / f"{number}.png")
    return tmp_path


def test_reads_classes_in_order(folder):
    images, labels, classes, skipped = photos.load_folder(folder, size=32)
    assert images.shape == (12, 32, 32, 3) and images.dtype == np.uint8
    assert classes == ("blue", "red") and labels.tolist() == [0] * 6 + [1] * 6 and skipped == []
    assert (images[0, 0, 0] == [0, 0, 255]).all() and (images[-1, 0, 0] == [255, 0, 0]).all()


def test_takes_the_central_square(folder):
    striped = Image.new("RGB", (60, 40), "white")
    striped.paste("black", (0, 0, 10, 40))  # outside the central 40 x 40
    striped.save(folder / "blue" / "a.png")
    images, *_ = photos.load_folder(folder, size=40)
    assert images[0].min() == 255 or images[6].min() == 255


def test_grey_and_transparent_images(folder):
    Image.new("L", (50, 50), 100).save(folder / "blue" / "grey.png")
    Image.new("RGBA", (50, 50), (10, 20, 30, 0)).save(folder / "red" / "clear.png")
    images, _, _, _ = photos.load_folder(folder, size=16)
    colours = {tuple(image[8, 8]) for image in images}
    assert (100, 100, 100) in colours and (255, 255, 255) in colours


@pytest.mark.parametrize("damage", ["truncated", "text", "huge", "odd EXIF"])
def test_unreadable_images(folder, damage, monkeypatch):
    victim = folder / "red" / "3.png"
    victim.write_bytes(victim.read_bytes()[:60] if damage == "truncated" else b"no image")
    if damage == "huge":
        Image.new("1", (900, 900)).save(victim)
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100_000)
    if damage == "odd EXIF":
        exif = Image.Exif()
        exif[0x0112], exif[0x011A] = 6, 1.0
        Image.new("RGB", (9, 9)).save(victim, exif=exif)
        turn = ImageOps.exif_transpose

        def odd(image):
            if image.size == (9, 9):
                raise struct.error("required argument is not an integer")
            return turn(image)

        monkeypatch.setattr(ImageOps, "exif_transpose", odd)
    with pytest.raises(InputError, match=r"3\.png cannot be read.*skip"):
        photos.load_folder(folder)
    images, _, _, skipped = photos.load_folder(folder, unreadable="skip")
    assert len(images) == 11 and [name.replace("\\", "/") for name in skipped] == ["red/3.png"]


def test_one_class_is_refused(folder):
    for path in (folder / "red").iterdir():
        path.unlink()
    with pytest.raises(InputError, match=r"1 class\(es\), blue"):
        photos.load_folder(folder)


def test_missing_folder_and_wrong_policy(folder):
    with pytest.raises(InputError, match="does not exist"):
        photos.load_folder(folder / "nowhere")
    with pytest.raises(InputError, match="unreadable='ignore' must be 'refuse' or 'skip'"):
        photos.load_folder(folder, unreadable="ignore")


def test_a_class_without_readable_images(folder):
    for path in (folder / "red").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(InputError, match="no readable image of class 'red'"):
        photos.load_folder(folder, unreadable="skip")


def test_as_a_dataset(folder):
    dataset = data.load(str(folder))
    assert dataset.classes == ("blue", "red") and len(dataset.x_test) == 2 and len(dataset.x_train) == 10
    assert np.bincount(dataset.y_test).tolist() == [1, 1]
    assert dataset.sha256 == data.load(str(folder)).sha256


def test_too_few_images_of_a_class(folder):
    for number in range(3):
        (folder / "red" / f"{number}.png").unlink()
    with pytest.raises(InputError, match="fewer than 5 images"):
        data.load(str(folder))


def test_dataset_errors_are_data_errors(tmp_path):
    with pytest.raises(InputError, match="does not exist"):
        data.load(str(tmp_path / "nothing"))


def test_photos_that_were_taken_upright_stand_upright(folder):
    lying = Image.new("RGB", (40, 40), "blue")
    lying.paste("red", (0, 0, 20, 40))
    exif = lying.getexif()
    exif[0x0112] = 6  # turned by a quarter to the right
    lying.save(folder / "blue" / "0.jpg", exif=exif, quality=95)
    images, *_ = photos.load_folder(folder, size=40)
    upright = next(image for image in images if image[5, 20, 0] > 200 and image[35, 20, 2] > 200)
    assert (upright[5, :, 0] > 200).all() and (upright[35, :, 2] > 200).all()


def test_sixteen_bits_are_scaled_and_not_cut_off(folder):
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    Image.fromarray(ramp).save(folder / "blue" / "0.png")
    images, *_ = photos.load_folder(folder, size=64)
    np.testing.assert_allclose(images[0].mean(-1), ramp / 257, atol=1.5)


def test_classes_are_in_the_order_of_their_letters_on_every_system(tmp_path, monkeypatch):
    for name in ("apple", "Zebra"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (9, 9)).save(tmp_path / name / "1.png")
    real = Path.iterdir
    windows = lambda self: iter(sorted(real(self), key=lambda path: path.name.lower()))  # noqa: E731
    monkeypatch.setattr(Path, "iterdir", windows)
    assert photos.load_folder(tmp_path, size=8)[2] == ("Zebra", "apple")


def test_a_folder_may_be_named_from_where_it_lies(folder, monkeypatch):
    monkeypatch.chdir(folder.parent)
    assert data.load(folder.name).classes == data.load(folder).classes == ("blue", "red")
