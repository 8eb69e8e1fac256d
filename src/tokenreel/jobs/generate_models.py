"""What a generator needs to make a video: its tokenizer, the encoder of its prompts, and what it was trained on."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

from torch import Tensor, nn

from tokenreel.errors import FormatError, InputError
from tokenreel.generate.condition import Condition
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.text import TextEncoder
from tokenreel.generate.text_t5 import T5Text
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.tokenizers import RawTokenizer, Tokenizer, load
from tokenreel.tokenizers.hub import is_hub_id, pretrained_folder
from tokenreel.tokenizers.saved import Precision

__all__ = ["ABOUT_NAME", "Prompted", "TrainedOn", "encoder_of", "tokenizer_for", "trained_on"]

ABOUT_NAME = "trained_on.json"
_BESIDE = "tokenizer"  # folder of the tokenizer, within or beside that of a generator
_T5 = "t5:"


class TrainedOn(NamedTuple):
    """What a generator learned from, kept beside its weights.

    Attributes:
        size: (height, width) of most records, or None where it is not known.
        num_frames: of a window: the most frames that it saw at once.
        fps: of most records, or None.
        labels: names of its classes, in order.
        sampling: fields of a storyboard that suit it best, such as ``still_steps``; where nothing else is said.
    """

    size: tuple[int, int] | None = None
    num_frames: int | None = None
    fps: float | None = None
    labels: tuple[Any, ...] = ()
    sampling: Mapping[str, Any] = MappingProxyType({})


def trained_on(folder: Path) -> TrainedOn:
    """What ``trained_on.json`` in a generator's folder tells; nothing where there is none.

    Raises:
        FormatError: the file is damaged.
    """
    path = folder / ABOUT_NAME
    if not path.is_file():
        return TrainedOn()
    try:
        values = json.loads(path.read_text())
        size, labels = values["size"], values["labels"]
        return TrainedOn(
            None if size is None else (int(size[0]), int(size[1])),
            None if values["num_frames"] is None else int(values["num_frames"]),
            None if values["fps"] is None else float(values["fps"]),
            tuple(labels),
            dict(values.get("sampling", {})),
        )
    except (ValueError, KeyError, TypeError, IndexError) as error:
        raise FormatError(f"{path} does not tell what a generator was trained on ({error}); delete it") from error


def tokenizer_for(
    vocabulary: Vocabulary,
    *,
    given: str | None = None,
    beside: Path | None = None,
    device: str = "cpu",
    precision: Any = "fp32",
) -> Tokenizer:
    """The tokenizer of a generator's ids.

    It is looked for in ``tokenizer/`` within the generator's folder, then beside that folder, then where it was when
    the ids were made: as a folder, or by its name, of those that ship or on the hub.

    Args:
        vocabulary: of the generator.
        given: folder, name or hub id that was asked for.
        beside: folder of the generator.
        device, precision: as in ``load``.

    Raises:
        InputError: it is not found. MismatchError: another one was given, or is there now.
    """
    options = {"device": device, "precision": precision}
    if given is not None:
        made = load(given, **options)
        vocabulary.check(made)
        return made
    reference = vocabulary.tokenizer_reference
    config, source = reference.get("tokenizer_config"), reference.get("tokenizer_source")
    if vocabulary.tokenizer == RawTokenizer.name and isinstance(config, dict):
        return RawTokenizer.from_config(config)
    places = [] if beside is None else [beside / _BESIDE, beside.parent / _BESIDE]
    if isinstance(source, str):
        places += [Path(source), *([] if beside is None else [beside / source])]
    found = [load(place, **options) for place in places if (place / "config.json").is_file()]
    if not found and isinstance(source, str) and (pretrained_folder(source) is not None or is_hub_id(source)):
        found = [load(source, **options)]
    for one in found:
        if (one.name, one.fingerprint) == (vocabulary.tokenizer, vocabulary.fingerprint):
            return one
    if found:
        vocabulary.check(found[0])
        return found[0]
    owner = f"{vocabulary.tokenizer} {vocabulary.fingerprint[:12]}" if vocabulary.tokenizer else "no tokenizer by name"
    where = f", once at {source!r}" if source else ""
    raise InputError(
        f"this generator speaks the ids of {owner}{where}, which is neither there nor beside it; name it with "
        "--tokenizer"
    )


def encoder_of(
    model: MaskGIT, *, cache: str | os.PathLike[str] | None = None, device: str = "cpu"
) -> TextEncoder | None:
    """The text encoder that a generator was trained with; None where it is inside, or no text is read.

    Raises:
        InputError: the configuration does not name it. MismatchError: it is another one now.
    """
    config = model.config
    if config.context_dim is None or model.text is not None:
        return None
    if not config.text_encoder.startswith(_T5):
        raise InputError(
            f"this generator reads text states {config.context_dim} wide, but its configuration names no encoder that "
            f"is known here ({config.text_encoder!r}); sample with it in Python: condition(prompts, encoder=...)"
        )
    encoder = T5Text(config.text_encoder.removeprefix(_T5), cache=cache, device=device)
    model.check_text(encoder)
    return encoder


class Prompted(nn.Module):
    """A generator that is told by one text a scene, whatever it was trained to be told.

    Text goes to the text encoder; a class is named, or numbered where no class is named so; a generator that is told
    nothing takes any text and does not look at it.
    """

    def __init__(self, model: MaskGIT, labels: Sequence[Any] = ()) -> None:
        super().__init__()
        self.model = model
        self._numbers = {str(name): number for number, name in enumerate(labels)}

    @property
    def vocab(self) -> Vocabulary:
        """Of its ids."""
        return self.model.vocab

    @property
    def precision(self) -> Precision:
        """As ``MaskGIT.precision``."""
        return self.model.precision

    @property
    def critic_head(self) -> nn.Linear | None:
        """The critic inside, or None."""
        return self.model.critic_head

    def condition(
        self, prompts: Sequence[str] | None = None, *, encoder: TextEncoder | None = None
    ) -> Condition | None:
        """Prompts or names of classes -> ``Condition``."""
        config = self.model.config
        if prompts is None or config.context_dim is not None or config.num_classes is None:
            return self.model.condition(prompts if config.is_conditional else None, encoder=encoder)
        return self.model.condition(labels=[self._number(prompt, config.num_classes) for prompt in prompts])

    def prepare(self, condition: Condition | None, *, num: int, guided: bool = False) -> Any:
        """As ``MaskGIT.prepare``."""
        return self.model.prepare(condition, num=num, guided=guided)

    def features(self, ids_BL: Tensor, **options: Any) -> Tensor:
        """As ``MaskGIT.features``."""
        return self.model.features(ids_BL, **options)

    def logits(self, features_ND: Tensor) -> tuple[Tensor, ...]:
        """As ``MaskGIT.logits``."""
        return self.model.logits(features_ND)

    @property
    def is_chained(self) -> bool:
        """As ``MaskGIT.is_chained``."""
        return self.model.is_chained

    def next_logits(self, features_ND: Tensor, digits_Nf: Tensor) -> Tensor:
        """As ``MaskGIT.next_logits``."""
        return self.model.next_logits(features_ND, digits_Nf)

    def critic_scores(self, features_BLD: Tensor) -> Tensor:
        """As ``MaskGIT.critic_scores``."""
        return self.model.critic_scores(features_BLD)

    def _number(self, text: str, num_classes: int) -> int:
        name = text.strip()
        if name in self._numbers:
            return self._numbers[name]
        if name.isdecimal() and int(name) < num_classes:
            return int(name)
        import difflib

        near = difflib.get_close_matches(name, self._numbers, n=3, cutoff=0)
        known = f"; the nearest classes are {', '.join(near)}" if near else ""
        raise InputError(
            f"this generator is told by a class, a name or a number in [0, {num_classes}), got {text!r}{known}"
        )
