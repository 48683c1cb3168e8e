"""``aimcore tokenizer``: fit, export, convert, inspect and apply image tokenizers."""

from __future__ import annotations

import argparse
import io
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aimcore.contracts.scales import SCALES
from aimcore.io.atomic_files import sha256_of, write_atomically
from aimcore.io.terminal import Terminal

if TYPE_CHECKING:
    from aimcore.contracts.tokenizers import ImageTokenizer
    from aimcore.running.tokenizer_fitting import TokenizerImages
    from aimcore.running.tokenizer_inspection import Inspection

_SHOWN = 8
_SMALLEST_PICTURE = 96
_AS_FITTED = ("as fitted, or 224", "as fitted, or 14")
_WHAT = "a study (.py), a recipe (.json, .yaml), the name of a source, or a source as JSON with its fields"


def add_tokenizer_arguments(commands: Any) -> None:
    """Add ``aimcore tokenizer`` with its own subcommands."""
    tokenizer = commands.add_parser("tokenizer", help="fit, export, convert or inspect an image tokenizer")
    kinds = tokenizer.add_subparsers(required=True, metavar="ACTION")
    fit = kinds.add_parser(
        "fit", help="fit a tokenizer to the training images of a study or a source",
        description="Fit an image tokenizer to training crops, and write its file. Print the hash for the recipe.",
    )  # fmt: skip
    fit.add_argument("images", metavar="STUDY_OR_SOURCE", help=_WHAT)
    fit.add_argument("--name", required=True, metavar="TOKENIZER", help="tokenizer to fit, such as kmeans")
    _add_out(fit)
    fit.add_argument(
        "--set", action="append", default=[], dest="changes", metavar="FIELD=VALUE",
        help="change a setting of the fit, such as num_codes=1024; repeatable",
    )  # fmt: skip
    _add_images_options(fit, "224", "14")
    fit.set_defaults(function=_fit)
    export = kinds.add_parser("export", help="write the tokenizer that a finished run trained")
    export.add_argument("run", type=Path, metavar="RUN", help="folder of a finished run")
    _add_out(export)
    export.set_defaults(function=_export)
    convert = kinds.add_parser(
        "convert", help="write the file of a published tokenizer",
        description="Convert published files, such as encoder.pkl and decoder.pkl of DALL-E's dVAE. Only tensors are "
        "read from them: nothing is unpickled.",
    )  # fmt: skip
    convert.add_argument("files", nargs="+", metavar="FILE", help="published files, the encoder first")
    convert.add_argument("--name", required=True, metavar="TOKENIZER", help="kind of tokenizer, such as dvae")
    _add_out(convert)
    convert.set_defaults(function=_convert)
    encode = kinds.add_parser(
        "encode", help="store the codes of all images of a study or a source",
        description="Compute the codes of all training and validation images once, and store them in a zarr group, for "
        "the field 'stored' of the target 'codes'. Training images of a study must be rendered without random changes; "
        "those of a source are.",
    )  # fmt: skip
    encode.add_argument("images", metavar="STUDY_OR_SOURCE", help=_WHAT)
    encode.add_argument("file", metavar="FILE", help="the file of a tokenizer")
    encode.add_argument("--out", required=True, metavar="URL", help="zarr group to write: a path or URL")
    _add_images_options(encode, *_AS_FITTED)
    encode.set_defaults(function=_encode)
    inspect = kinds.add_parser(
        "inspect", help="show how a tokenizer uses its codes, and what it reconstructs",
        description="Encode and decode validation images: the share of codes in use, their perplexity, and a picture "
        "of images above their reconstructions.",
    )  # fmt: skip
    inspect.add_argument("file", metavar="FILE", help="the file of a tokenizer")
    inspect.add_argument("--on", metavar="STUDY_OR_SOURCE", help=f"{_WHAT}; default: what the tokenizer was fitted on")
    inspect.add_argument("--images", type=int, default=1000, metavar="N", help="images to encode (default: 1000)")
    inspect.add_argument("--picture", type=Path, metavar="PNG", help="picture to write (default: FILE with .png)")
    inspect.add_argument("--json", action="store_true", help="print values instead of text")
    _add_images_options(inspect, *_AS_FITTED)
    inspect.set_defaults(function=_inspect)


def _add_out(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", required=True, type=Path, metavar="FILE", help="file to write (.safetensors); it must not exist"
    )


def _add_images_options(parser: argparse.ArgumentParser, image_size: str, patch_size: str) -> None:
    parser.add_argument("--scale", choices=SCALES, default="small", help="scale of a study (default: small)")
    parser.add_argument("--only", metavar="NAME", help="experiment of a study (default: its first)")
    parser.add_argument("--image-size", type=int, metavar="PX", help=f"crops of a source (default: {image_size})")
    parser.add_argument("--patch-size", type=int, metavar="PX", help=f"patches of a source (default: {patch_size})")


def _fit(options: argparse.Namespace) -> int:
    from aimcore.cli.progress_counter import Stages
    from aimcore.running.tokenizer_fitting import fit_settings, fit_tokenizer

    settings = fit_settings(options.name, options.changes)
    _require_new(options.out)
    with Stages() as shown:
        fit_tokenizer(_named(options.images, options), settings, options.out, shown.progress)
    _print_recipe(options.name, options.out)
    return 0


def _export(options: argparse.Namespace) -> int:
    from aimcore.running.tokenizer_fitting import export_tokenizer

    _require_new(options.out)
    _print_recipe(export_tokenizer(options.run, options.out).name, options.out)
    return 0


def _convert(options: argparse.Namespace) -> int:
    from aimcore.running.tokenizer_fitting import convert_tokenizer

    _require_new(options.out)
    convert_tokenizer(options.name, options.files, options.out)
    _print_recipe(options.name, options.out)
    return 0


def _encode(options: argparse.Namespace) -> int:
    from aimcore.cli.progress_counter import Stages
    from aimcore.experiment import Augmentation
    from aimcore.running.tokenizer_inspection import encode_images

    tokenizer, fitted_on = _tokenizer(options.file)
    still = Augmentation(crop_scale=(1, 1), crop_ratio=(1, 1), flip_probability=0)
    images = _named(options.images, options, fitted_on, augmentation=still)
    with Stages() as shown:
        number = encode_images(tokenizer, images, options.out, shown.progress)
    Terminal().print(f"stored the codes of {number:,} different images in {options.out}", soft_wrap=True)
    return 0


def _inspect(options: argparse.Namespace) -> int:
    from aimcore.cli.progress_counter import Stages
    from aimcore.contracts.component import at_least
    from aimcore.contracts.errors import InvalidValue, Problem
    from aimcore.running.tokenizer_fitting import TokenizerImages
    from aimcore.running.tokenizer_inspection import inspect_tokenizer

    problems = [*at_least("images", options.images, 1)]
    if options.picture is not None and options.picture.suffix.lower() != ".png":
        problems.append(Problem("picture", f"must be the name of a PNG file, got {options.picture}"))
    if problems:
        raise InvalidValue("inspect", problems)
    tokenizer, fitted_on = _tokenizer(options.file)
    images = (
        _named(options.on, options, fitted_on) if options.on else TokenizerImages.of_record(fitted_on, options.file)
    )
    with Stages() as shown:
        found = inspect_tokenizer(
            tokenizer, images, num_images=options.images, num_shown=_SHOWN, progress=shown.progress
        )
    picture = options.picture or Path(options.file.rpartition("/")[2]).with_suffix(".png")
    if found.decoded_BHWC is not None:
        write_atomically(picture, _picture(found))
    _print_inspection(options.file, tokenizer, found, picture, as_json=options.json)
    return 0


def _named(what: str, options: argparse.Namespace, fitted_on: str = "", **how: Any) -> TokenizerImages:
    """Return the images that a command names. Sizes that are not given are those of ``fitted_on``, if it names any."""
    from aimcore.running.tokenizer_fitting import CannotFit, TokenizerImages, images_named

    sizes = {"image_size": options.image_size, "patch_size": options.patch_size}
    with suppress(CannotFit):  # a converted file names no images
        like = TokenizerImages.of_record(fitted_on, options.file) if fitted_on else None
        known = {} if like is None else {"image_size": like.data.image_size, "patch_size": like.patch_size}
        sizes = {name: known.get(name) if size is None else size for name, size in sizes.items()}
    given = {name: size for name, size in sizes.items() if size is not None}
    return images_named(what, scale=options.scale, only=options.only, **given, **how)


def _require_new(path: Path) -> None:
    """Refuse a file that exists or cannot be written, before anything is fitted: recipes name files by their hash."""
    from aimcore.io.atomic_files import require_new, require_writable

    require_new(path)
    require_writable(path)


def _tokenizer(file: str) -> tuple[ImageTokenizer, str]:
    from aimcore.io.tokenizer_files import NotATokenizerFile, tokenizer_record
    from aimcore.running.tokenizer_fitting import tokenizer_classes

    record, known = tokenizer_record(file), tokenizer_classes()
    if record.tokenizer not in known:
        raise NotATokenizerFile(f"{file} is of tokenizer {record.tokenizer!r}; there are {', '.join(known)}")
    return known[record.tokenizer].from_file(file), record.fitted_on


def _print_recipe(name: str, path: Path) -> None:
    import json

    recipe = {"name": name, "path": str(path), "sha256": sha256_of(path)}
    Terminal().print(json.dumps(recipe), soft_wrap=True, highlight=False)


def _print_inspection(file: str, tokenizer: ImageTokenizer, found: Inspection, picture: Path, *, as_json: bool) -> None:
    usage, number = found.usage, tokenizer.num_codes
    values = {
        "file": file,
        "tokenizer": tokenizer.name,
        "num_codes": number,
        "num_images": found.num_images,
        "num_patches": int(usage.counts_K.sum()),
        "num_used": usage.num_used,
        "entropy": usage.entropy,
        "perplexity": usage.perplexity,
        "most_frequent": float(usage.counts_K.max() / usage.counts_K.sum()),
        "mean_squared_error": found.error,
        "picture": None if found.decoded_BHWC is None else str(picture),
    }
    if as_json:
        Terminal().print_data(values)
        return
    lines = [
        f"tokenizer {tokenizer.name} with {number:,} codes, on {found.num_images:,} images "
        f"({values['num_patches']:,} patches)",
        f"used        {usage.num_used:,} codes ({usage.num_used / number:.1%})",
        f"perplexity  {usage.perplexity:,.1f} (entropy of the marginal {usage.entropy:.3f} nats)",
        f"most common {values['most_frequent']:.1%} of all patches have one code",
        "decoded     not possible" if found.error is None else f"decoded     mean squared error {found.error:.5f}",
    ]
    if found.decoded_BHWC is not None:
        lines.append(f"picture     {picture}")
    Terminal().print("\n".join(lines), soft_wrap=True, highlight=False)


def _picture(found: Inspection) -> bytes:
    """A PNG with the images above their reconstructions, enlarged without smoothing."""
    import numpy as np
    from PIL import Image

    assert found.decoded_BHWC is not None
    factor = max(1, -(-_SMALLEST_PICTURE // found.originals_BHWC.shape[1]))
    rows = []
    for images_BHWC in (found.originals_BHWC, found.decoded_BHWC):
        large = images_BHWC.repeat(factor, 1).repeat(factor, 2)
        framed = np.pad(large, ((0, 0), (2, 2), (2, 2), (0, 0)), constant_values=255)
        rows.append(np.concatenate(list(framed), axis=1))
    pixels_HWC = np.concatenate(rows, axis=0)
    three = pixels_HWC if pixels_HWC.shape[2] == 3 else pixels_HWC[..., :1].repeat(3, 2)
    content = io.BytesIO()
    Image.fromarray(three).save(content, "PNG")
    return content.getvalue()
