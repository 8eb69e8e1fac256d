"""The parts of a generator's run, or of its critic's."""

from __future__ import annotations

import itertools
import json
import shutil
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tokenreel.errors import InputError, TokenReelWarning
from tokenreel.files import whole_file
from tokenreel.generate.critic import TokenCritic
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.prime import Timing
from tokenreel.generate.sample import sample
from tokenreel.generate.text import TextEncoder
from tokenreel.generate.text_t5 import T5Text
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.nn.kept_memory import keep_freed_memory
from tokenreel.quantize import Quantizer
from tokenreel.tokenizers import RawTokenizer, Tokenizer
from tokenreel.tokenizers.hub import is_hub_id, pretrained_folder
from tokenreel.tokenizers.saved import CONFIG_NAME, WEIGHTS_NAME, SavedModel
from tokenreel.train.masked import CriticAlone, Guesser, Masked
from tokenreel.train.recipes_base import Recipe
from tokenreel.train.recipes_masked import MaskedRecipe
from tokenreel.train.runtime import Runtime
from tokenreel.train.token_batches import TokenStream, readable
from tokenreel.types import Tokens

from .encode import as_frames
from .generate_models import ABOUT_NAME, encoder_of, tokenizer_for
from .train_parts import Fixed
from .train_resume import described

__all__ = ["MaskedParts"]

_SHOWN = 4  # records in a picture
_FRAMES = 4  # frames of each
_STEPS, _GUIDANCE = 12, 2.0  # of the videos in a picture
_LOOKED_AT = 64  # records whose size and rate are counted


class MaskedParts:
    """A generator or its critic, what is masked, and batches of token records; see ``Parts``.

    Args:
        plan: the recipe.
        runtime: device and processes.
        lpips: not for this objective.
        num_workers: threads that read ahead; None: the recipe's.
    """

    fixed = Fixed(
        names=("critic", "critic.kind", "critic.after", "model.judges"),
        within=("model.config.", "model.critic_config."),
    )

    def __init__(
        self, plan: Recipe, runtime: Runtime, *, lpips: str | None = None, num_workers: int | None = None
    ) -> None:
        assert isinstance(plan, MaskedRecipe)
        if lpips is not None:
            raise InputError("--lpips is for recipes of tokenizers; a generator never sees pixels")
        if plan.loop.parallel == "fsdp" and runtime.world_size > 1:
            raise InputError("loop.parallel=fsdp is not for generators: they fit on one device; say loop.parallel=ddp")
        self.plan, self.runtime = plan, runtime
        if runtime.device.type == "cpu":
            keep_freed_memory()
        self.stream = TokenStream(
            plan.data.opened(),
            plan.data.batches,
            seed=plan.loop.seed,
            rank=runtime.rank,
            world_size=runtime.world_size,
            num_workers=plan.data.num_workers if num_workers is None else num_workers,
        )
        self.generator, self.encoder = _generator(plan, self.stream, runtime)
        self.critic = _critic(plan, self.generator)
        self.labels = self._check_told()
        self.model, self.objective = self._trained()
        self.frozen: Sequence[nn.Module] = self._frozen()
        self._tokenizer: Tokenizer | None = None

    @property
    def is_alone(self) -> bool:
        """Whether the critic learns and the generator does not."""
        return self.plan.critic is not None and self.plan.critic.after

    def about(self) -> Mapping[str, Any]:
        """The full configurations; of a critic that learns alone also the fingerprint of the generator it judges."""
        found = described(self.generator.config)
        if self.critic is not None:
            found |= described(self.critic.config, "critic_config")
        if self.is_alone:
            found["judges"] = self.generator.fingerprint
        return found

    def start(self) -> None:
        """Nothing."""

    def exports(self, model: nn.Module) -> dict[str, SavedModel]:
        """The generator, its critic, or both."""
        if self.is_alone and self.critic is not None:
            return {"critic": self.critic}
        found: dict[str, SavedModel] = {"generator": self.generator}
        return found if self.critic is None else {**found, "critic": self.critic}

    def complete(self, folder: Path) -> None:
        """Beside a generator: what it was trained on, and a copy of its tokenizer, so that its folder suffices."""
        generator = folder / "generator"
        if not generator.is_dir():
            return
        with whole_file(generator / ABOUT_NAME) as path:
            path.write_text(json.dumps(self._trained_on(), indent=1) + "\n")
        if self.stream.origin.tokenizer == RawTokenizer.name:
            return
        source = self.stream.origin.reference.get("tokenizer_source")
        kept = Path(source) if isinstance(source, str) else None
        if kept is None or not (kept / CONFIG_NAME).is_file():
            if isinstance(source, str) and (pretrained_folder(source) is not None or is_hub_id(source)):
                return  # a name that finds it anywhere
            text = f"the tokenizer {source!r} is not here to be kept with the generator; generate with --tokenizer"
            warnings.warn(text, TokenReelWarning, stacklevel=4)
            return
        for name in (CONFIG_NAME, WEIGHTS_NAME, "README.md"):
            if (kept / name).is_file():
                with whole_file(generator / "tokenizer" / name) as path:
                    shutil.copyfile(kept / name, path)

    def measured(self, model: nn.Module, step: int, folder: Path) -> Mapping[str, float]:
        """Nothing."""
        return {}

    def picture(self, model: nn.Module, step: int) -> Any:
        """Records beside what the generator makes of their captions or classes."""
        from tokenreel.jobs.sheet import contact_sheet

        if self.is_alone:
            return None
        if self._tokenizer is None:
            self._tokenizer = tokenizer_for(self.generator.vocab)
        shown = self._shown()
        strips, names = [], []
        for tokens, told, label in shown:
            made = self._sampled(tokens, told, label)
            for one, name in ((tokens, told or str(label)), (made, f"step {step}")):
                strips.append(_strip(as_frames(self._tokenizer.decode([one])[0])))
                names.append(name if len(name) <= 60 else name[:57] + "...")
        return contact_sheet(strips, names, columns=2, width=1400)

    def _shown(self) -> list[tuple[Tokens, str | None, Any]]:
        """The first records of every source, with caption and label."""
        found: list[tuple[Tokens, str | None, Any]] = []
        each = -(-_SHOWN // len(self.stream.collections))
        for one in self.stream.collections:
            some = itertools.islice(readable(one, range(len(one))), each)
            found += [(tokens, example.caption, example.label) for example, tokens in some]
        return found[:_SHOWN]

    def _sampled(self, tokens: Tokens, told: str | None, label: Any) -> Tokens:
        config = self.generator.config
        condition = None
        if config.context_dim is not None and told:
            condition = self.generator.condition([told], encoder=self.encoder)
        elif config.num_classes is not None and label in self.labels:
            condition = self.generator.condition(labels=[self.labels.index(label)])
        ids_BL = sample(
            self.generator,
            grid=self.stream.origin.grid_of(tokens),
            condition=condition,
            steps=_STEPS,
            guidance_scale=1.0 if condition is None else _GUIDANCE,
            generator=torch.Generator().manual_seed(self.plan.loop.seed),
        )
        return replace(tokens, ids_L=ids_BL[0].cpu().numpy())

    def _trained(self) -> tuple[nn.Module, Masked]:
        plan, choice = self.plan, self.plan.critic
        if choice is None:
            return Guesser(self.generator, plan.masking, encoder=self.encoder), Masked()
        if choice.after:
            alone = CriticAlone(
                self.generator, self.critic, plan.masking, encoder=self.encoder, temperature=choice.temperature
            )
            return alone, Masked()
        guesser = Guesser(
            self.generator,
            plan.masking,
            encoder=self.encoder,
            self_weight=choice.weight if choice.kind == "self" else 0.0,
            shows=choice.kind == "token",
            temperature=choice.temperature,
            fooling=choice.fooling,
            judge=self.critic,
        )
        return guesser, Masked(self.critic, start_step=choice.start_step)

    def _frozen(self) -> list[nn.Module]:
        if not self.is_alone or self.critic is not None:
            return []
        return [part for name, part in self.generator.named_children() if name != "critic_head"]

    def _check_told(self) -> tuple[Any, ...]:
        """The classes; InputError where the records do not tell what the generator reads."""
        config = self.generator.config
        if config.context_dim is not None and not self.stream.has_captions():
            raise InputError(
                "this generator reads captions, but the records looked at have none; put a text of the same name "
                "beside each file (clip.txt), or a column caption in a table, and encode again"
            )
        if config.num_classes is None:
            return ()
        names = self.stream.read_labels()
        if len(names) > config.num_classes:
            raise InputError(
                f"the records have {len(names)} classes, the generator has num_classes={config.num_classes}; say "
                f"model.changes.num_classes={len(names)}"
            )
        return names

    def _trained_on(self) -> dict[str, Any]:
        """What most of some records are like, as ``generate_models.TrainedOn``."""
        tokens = []
        for one in self.stream.collections:
            numbers = np.unique(np.linspace(0, len(one) - 1, min(_LOOKED_AT, len(one))).round().astype(int))
            seen = [found for _, found in readable(one, numbers.tolist())]
            tokens += seen or [found for _, found in itertools.islice(readable(one, range(len(one))), 1)]
        size = Counter(one.size[1:] for one in tokens).most_common(1)[0][0]
        rates = Counter(one.fps for one in tokens if one.fps is not None).most_common(1)
        frames = max(one.size[0] for one in tokens)
        most_steps = self.plan.data.batches.max_steps
        if most_steps is not None:
            timing = _timing(self.stream)
            frames = min(frames, timing.frames(most_steps)) if timing is not None else frames
        return {
            "size": [int(side) for side in size],
            "num_frames": int(frames),
            "fps": rates[0][0] if rates else None,
            "labels": list(self.labels),
            **({"sampling": dict(self.plan.sampling)} if self.plan.sampling else {}),
        }


def _generator(plan: MaskedRecipe, stream: TokenStream, runtime: Runtime) -> tuple[MaskGIT, TextEncoder | None]:
    choice, device = plan.model, str(runtime.device)
    needs_head = plan.critic is not None and plan.critic.kind == "self"
    if choice.init is not None:
        model = MaskGIT.from_pretrained(choice.init)
        first = stream.collections[0]
        model.vocab.check(next(tokens for _, tokens in readable(first, range(len(first)))))
        if needs_head and model.critic_head is None:
            model = _with_head(model, plan.loop.seed)
        return model, encoder_of(model, cache=choice.text_cache, device=device)
    encoder: TextEncoder | None = None
    told: dict[str, Any] = {}
    if choice.text_encoder is not None:
        encoder = T5Text(choice.text_encoder, cache=choice.text_cache, device=device)
        told = {"text_encoder": encoder.name, "text_fingerprint": encoder.fingerprint}
        told["context_dim"] = encoder.dim
    config = choice.config(stream.origin.vocabulary(choice.most_levels), **told)
    if needs_head:
        config = replace(config, self_critic=True)
    if config.context_dim is not None and config.text is None and encoder is None:
        raise InputError(
            f"this generator reads text states {config.context_dim} wide; name what makes them: "
            "model.text_encoder=google-t5/t5-base, or model.changes.context_dim=null for none"
        )
    model = MaskGIT.untrained(config, seed=plan.loop.seed)
    if choice.from_codes:
        model.start_from_codes(_codes(config.vocabulary))
    return model, encoder


def _codes(vocabulary: Vocabulary) -> Tensor:
    """(K, E): what each id of the tokenizer stands for."""
    made = tokenizer_for(vocabulary)
    quantizer = getattr(made, "quantizer", None)
    if not isinstance(quantizer, Quantizer):
        raise InputError(f"the ids of {made.name} stand for no codes; leave model.from_codes out")
    with torch.no_grad():
        found: Tensor = quantizer.codes(torch.arange(vocabulary.codebook_size))
    return found


def _with_head(model: MaskGIT, seed: int) -> MaskGIT:
    """The same generator with a critic's head that has learned nothing yet."""
    made = MaskGIT.untrained(replace(model.config, self_critic=True), seed=seed)
    made.load_state_dict({**made.state_dict(), **model.state_dict()})
    return made


def _critic(plan: MaskedRecipe, generator: MaskGIT) -> TokenCritic | None:
    if plan.critic is None or plan.critic.kind != "token":
        return None
    config = plan.critic.config(generator.vocab)
    if config.context_dim is not None:
        config = replace(config, context_dim=generator.config.context_dim)
    if config.num_classes is not None:
        config = replace(config, num_classes=generator.config.num_classes)
    return TokenCritic.untrained(config, seed=plan.loop.seed + 1)


def _timing(stream: TokenStream) -> Timing | None:
    """How many frames the steps stand for, where the tokenizer is here to say it."""
    try:
        return Timing.of(tokenizer_for(stream.origin.vocabulary()))
    except InputError:
        return None


def _strip(frames_THWC: Any) -> Any:
    """A few frames side by side, uint8."""
    index = np.linspace(0, len(frames_THWC) - 1, min(_FRAMES, len(frames_THWC))).round().astype(int)
    return np.concatenate(list(frames_THWC[index]), axis=1)
