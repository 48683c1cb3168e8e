"""Opening of encoders: a file's layout, model, weights and preprocessing, each checked before time is spent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import torch
from loguru import logger
from torch import Tensor, nn

from aimcore.contracts.assembly import assembled, built_trunk
from aimcore.contracts.errors import InvalidValue
from aimcore.contracts.images import Preprocessing
from aimcore.contracts.layouts import FileLayout, GivenSettings, StoredModel
from aimcore.contracts.messages import shown
from aimcore.contracts.tokenizers import TextTokenizer
from aimcore.contracts.uncertainty import warn_uncertain
from aimcore.encoders.encoder import Encoder
from aimcore.encoders.encoder_source import EncoderSource
from aimcore.encoders.named_models import load_named, names_model
from aimcore.encoders.own_files import encoder_of_run, run_folder
from aimcore.encoders.preprocessing import PreprocessingName, as_given, in_whole_patches, preprocessing_of
from aimcore.encoders.recognition import UnknownWeights, layout_of, recognised
from aimcore.encoders.saved_encoders import RunTrunk, SavedSettings, saved_settings
from aimcore.engine.initial_weights import require_finite
from aimcore.engine.weights_fit import differences, message
from aimcore.io.preprocessor_files import CONFIG_FILE, PREPROCESSOR_FILE
from aimcore.io.weight_files import StoredWeights, open_weights
from aimcore.io.weight_siblings import beside, json_object

TRUNK, PROBE = "trunk.", "probe."


def load_encoder(
    url: str | Path,
    *,
    num_heads: int | None = None,
    text_heads: int | None = None,
    head: str | None = None,
    probe_layers: tuple[int, ...] | None = None,
    image_size: int | None = None,
    preprocessing: Preprocessing | PreprocessingName | None = None,
    tokenizer: TextTokenizer | None = None,
    layout: str | None = None,
    sha256: str | None = None,
) -> Encoder:
    """Open the encoder that ``url`` names, on the CPU.

    It is one of: a file of any known layout, a folder with one, shards with an index; the folder of a run, also of one
    that trains nothing; ``TRUNK:MODEL@FILE``, a model that a library knows by name with the file of its weights, such
    as ``timm:vit_base_patch16_224@mae.pth``; ``transformers:FOLDER``. Nothing is downloaded but what a URL names.

    Of a file, the layout is recognised by names and shapes of the tensors. Every tensor must be used, and every shape
    must fit. Settings are inferred from the shapes, and compared with a ``config.json`` next to the weights if there is
    one.

    Args:
        url: a path or fsspec URL (``hf://OWNER/NAME`` where huggingface_hub is installed), or a name as above.
        num_heads: heads of the trunk, which weights do not say. By default those of the config, else heads of 128
            values, as in every released model.
        text_heads: heads of the text tower or decoder, with the same default.
        head: a file with an attention probe of AIM, which was released apart from its trunk.
        probe_layers: blocks that the probe reads; by default those of the config.
        image_size: side of the images in pixels, for models whose positions do not say it; by default 224.
        preprocessing: normalisation and crop; by default those of the file next to the weights, else as published.
        tokenizer: tokenizer of the text tower; by default that next to the weights.
        layout: name of the layout, for the rare file that fits several.
        sha256: the hash that the file must have.

    Raises:
        UnreadableWeights: a file is missing, damaged, or would run code.
        StoreUnavailable: a remote store failed in every attempt.
        UnknownWeights: the tensors fit no known layout, or contradict the config, or have another hash.
        UnknownModel: a library has no model of this name, or nothing names its weights.
        InvalidValue: a run, or a model by its name, says itself what is given for a file.
        WeightsNotFinite: the weights contain NaN or infinity.
    """
    given = GivenSettings(
        num_heads=num_heads, text_heads=text_heads, tokenizer=tokenizer, image_size=image_size,
        probe_layers=probe_layers,
    )  # fmt: skip
    if not isinstance(url, str | Path):
        raise InvalidValue("load_encoder", [("url", f"must be a path or URL, got {shown(url)}")])
    url = str(url)
    described = _of_described(url, preprocessing)
    if described is not None:
        _require_nothing_given(url, given, head=head, layout=layout)
        _require_hash(described.source, sha256)
        return described
    opened = _opened(url, given, head, layout)
    _require_hash(opened.weights, sha256)
    require_finite(opened.weights.url, opened.state)
    return _built(opened, preprocessing)


def _opened(url: str, given: GivenSettings, head: str | None, layout: str | None) -> OpenedModel:
    weights = open_weights(url)
    probe = None if head is None else open_weights(head)
    return open_model(weights, probe, attrs.evolve(given, url=weights.url), layout)


def _of_described(url: str, preprocessing: Preprocessing | PreprocessingName | None) -> Encoder | None:
    """Return the encoder of a run, or of a model of a library by its name; None for files, which must be recognised."""
    given = None if preprocessing is None else as_given(preprocessing)
    if names_model(url):
        return load_named(url, given)
    run = run_folder(url)
    if run is None:
        return None
    encoder = encoder_of_run(run)
    return encoder if given is None else encoder.with_preprocessing(given)


def _require_nothing_given(url: str, given: GivenSettings, **others: str | None) -> None:
    """Refuse settings that would have no effect."""
    settings = attrs.asdict(given, recurse=False) | others
    problems = [
        (name, f"cannot be given for {url}, which says itself how it is built")
        for name, value in settings.items()
        if value is not None
    ]
    if problems:
        raise InvalidValue("load_encoder", problems)


@attrs.frozen(eq=False)
class OpenedModel:
    """A file whose layout and model are known, and whose tensors all fit."""

    weights: StoredWeights
    layout: FileLayout
    model: StoredModel
    state: Mapping[str, Tensor]
    """Values by the names of the model."""
    config: Mapping[str, Any] | None
    saved: SavedSettings | None
    """What :meth:`Encoder.save` wrote next to the weights; None for other files."""


def open_model(
    weights: StoredWeights, probe: StoredWeights | None, given: GivenSettings, name: str | None = None
) -> OpenedModel:
    """Find the layout and the model of opened weights, and check that every tensor fits.

    Raises:
        UnknownWeights: they do not.
    """
    saved = saved_settings(weights)
    config = json_object(weights.sibling(CONFIG_FILE), beside(weights.url, CONFIG_FILE))
    if saved is not None and saved.trunk is not None:
        layout: FileLayout = RunTrunk(trunk=saved.trunk)
    elif saved is not None:
        layout, given = layout_of(weights.shapes, weights.url, name=saved.layout), _merged(given, saved.given)
    else:
        layout = recognised(weights, probe, config, name)
    tensors = weights.load() if probe is None else {**weights.load(), **probe.load()}
    model = layout.model(tensors, config, given)
    if given.image_size is not None and model.image_size not in (None, given.image_size):
        raise UnknownWeights(
            f"{weights.url} says itself that its images have {model.image_size} px, and image_size={given.image_size} "
            "was given: leave it out; the transform resizes images"
        )
    problems = [] if config is None else list(_contradictions(model, layout.stated(config)))
    if problems:
        raise UnknownWeights(f"{weights.url} contradicts the {CONFIG_FILE} next to it: {'; '.join(problems)}")
    state = layout.read(tensors)
    misfits = [message(*problem) for problem in differences(_wanted(model), state)]
    if misfits:
        raise UnknownWeights(
            f"{weights.url} has the names of {layout.title} ({layout.name!r}), and does not fit the model that its "
            f"shapes describe, by the names of that model: {'; '.join(misfits)}"
        )
    return OpenedModel(weights, layout, model, state, config, saved)


def _merged(given: GivenSettings, saved: GivenSettings) -> GivenSettings:
    """Return what the user gave, and for the rest what was saved."""
    fields = [field.name for field in attrs.fields(GivenSettings)]
    own = {name: getattr(given, name) for name in fields}
    return GivenSettings(**{name: getattr(saved, name) if own[name] is None else own[name] for name in fields})


def _contradictions(model: StoredModel, stated: Mapping[str, Any]) -> Iterator[str]:
    for path, value in stated.items():
        own: Any = model
        for name in path.split("."):
            own = getattr(own, name, None)
        if own != value:
            yield f"{path} is {shown(own)} by the weights, {shown(value)} by the config"


def _wanted(model: StoredModel) -> dict[str, Tensor]:
    """Return the names and shapes of the model's tensors, without memory for them."""
    with torch.device("meta"):
        modules = _modules(model)
    return {prefix + name: value for prefix, module in modules.items() for name, value in module.state_dict().items()}


def _modules(model: StoredModel) -> dict[str, nn.Module]:
    """Build the modules, by the prefix of their names."""
    built: dict[str, nn.Module] = {}
    if model.objective is None:
        built[TRUNK] = built_trunk(model.trunk)
    else:
        built[""] = assembled(model.trunk, model.objective)
    if model.probe is not None:
        built[PROBE] = model.probe()
    return built


def _filled(model: StoredModel, state: Mapping[str, Tensor]) -> dict[str, nn.Module]:
    """Build the modules with the weights ``state``, in float32 on the CPU."""
    with torch.device("meta"):
        modules = _modules(model)
    if any(_computed_buffers(module) for module in modules.values()):
        with torch.random.fork_rng(devices=[]):  # random weights are replaced, and must not change later draws
            modules = _modules(model)
    for prefix, module in modules.items():
        own = {name: _copied(state[prefix + name]) for name in module.state_dict()}
        module.load_state_dict(own, assign=True)
        module.eval()
    return modules


def _computed_buffers(module: nn.Module) -> bool:
    """Whether the module has buffers that no file holds, so that it cannot be filled from the meta device."""
    return not {name for name, _ in module.named_buffers()} <= module.state_dict().keys()


def _copied(value: Tensor) -> Tensor:
    """Return a copy in float32: it shares no memory with the file or with other tensors. Integers keep their type."""
    kind = torch.float32 if value.is_floating_point() else value.dtype
    return value.to(kind, copy=True).contiguous()


def _built(opened: OpenedModel, given: Preprocessing | PreprocessingName | None) -> Encoder:
    weights, layout, model = opened.weights, opened.layout, opened.model
    known = None if opened.saved is None or given is not None else opened.saved.preprocessing
    if known is None:
        beside_it = weights.sibling(PREPROCESSOR_FILE)
        known = preprocessing_of(layout, opened.config, beside_it, given, model.image_size, weights.url)
    known = in_whole_patches(known, model.trunk.patch_size, weights.url)
    licence = _licence(opened.config) if opened.saved is None else opened.saved.licence
    modules = _filled(model, opened.state)
    objective: Any = modules.get("")
    source = EncoderSource(
        weights.url,
        layout.name,
        layout.title,
        weights.files,
        weights.sha256,
        licence or layout.licence,
        weights.dtype,
    )
    for text in model.advice:
        warn_uncertain(f"{weights.url}: {text}")
    logger.info(
        "{}: {}, {:,} bytes, sha256 {}, licence {}", source.name, source.title, source.num_bytes, source.sha256,
        source.licence or "unknown",
    )  # fmt: skip
    trunk: Any = modules[TRUNK] if objective is None else objective.trunk
    return Encoder(model, trunk, source, known, objective_module=objective, probe=modules.get(PROBE))


def _licence(config: Mapping[str, Any] | None) -> str | None:
    """Return the licence in a config of timm or transformers."""
    stated = (config or {}).get("pretrained_cfg", config or {})
    found = stated.get("license") if isinstance(stated, Mapping) else None
    return found if isinstance(found, str) and found.isprintable() and len(found) <= 100 else None


def _require_hash(weights: StoredWeights | EncoderSource, sha256: str | None) -> None:
    if sha256 is not None and weights.sha256 != sha256:
        raise UnknownWeights(
            f"{weights.url} has sha256 {weights.sha256}, not {sha256}: it was changed, or is another file"
        )
