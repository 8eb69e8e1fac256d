from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from tokenreel.errors import InputError
from tokenreel.generate.critic import TokenCritic, TokenCriticConfig
from tokenreel.generate.maskgit import MaskGIT
from tokenreel.generate.maskgit_config import MaskGITConfig
from tokenreel.generate.maskgit_groups import Neighbours, TokenGroups
from tokenreel.generate.sample import sample
from tokenreel.generate.vocabulary import Vocabulary
from tokenreel.tokenizers.configs import Stack
from tokenreel.types import Grid

torch.set_num_threads(1)

CONFIG = MaskGITConfig(
    vocabulary=Vocabulary(codebook_size=30, levels=(30,)),
    stack=Stack(dim=32, depth=2, num_heads=2, head_dim=16, mlp_dim=64),
    extents=(2, 4, 4),
    num_classes=3,
    group=(1, 2, 2),
    token_dim=20,
)


@torch.no_grad()
def test_a_position_is_a_box_of_tokens_and_comes_back_as_it() -> None:
    grid = Grid(t=2, h=4, w=4)
    groups = TokenGroups(group=(1, 2, 2), token_dim=3, dim=12)
    nn.init.eye_(groups.inward.weight)
    nn.init.eye_(groups.outward.weight)
    tokens = torch.arange(2 * 32 * 3.0).view(2, 32, 3)
    positions = groups(tokens, grid)
    assert positions.shape == (2, 8, 12)
    torch.testing.assert_close(positions[0, 1], torch.cat([tokens[0, place] for place in (2, 3, 6, 7)]))
    torch.testing.assert_close(groups.spread(positions, grid), tokens)


@torch.no_grad()
def test_a_box_at_the_end_may_be_part_empty() -> None:
    grid, groups = Grid(t=3, h=1, w=5), TokenGroups(group=(2, 1, 2), token_dim=4, dim=16)
    nn.init.eye_(groups.inward.weight)
    nn.init.eye_(groups.outward.weight)
    tokens = torch.randn(1, 15, 4)
    positions = groups(tokens, grid)
    assert groups.grid(grid) == Grid(t=2, h=1, w=3)
    assert positions[0, -1].count_nonzero() == 4  # one token of four is there
    torch.testing.assert_close(groups.spread(positions, grid), tokens)
    alone = torch.zeros(1, 15, dtype=torch.bool)
    alone[0, 14] = True
    assert groups.any(alone, grid).tolist() == [[False] * 5 + [True]]


def test_grouped_models_have_fewer_positions_and_narrow_tables() -> None:
    model = MaskGIT.untrained(CONFIG, seed=0)
    assert model.network.embed.weight.shape == (31, 20)
    assert model.head.weight.shape == (30, 20)
    seen: list[torch.Size] = []
    model.network.stack.register_forward_pre_hook(lambda _, args: seen.append(args[0].shape))
    ids = torch.full((1, 32), 30)
    assert model(ids, grid=Grid(t=2, h=4, w=4), condition=None).shape == (1, 32, 20)
    assert seen == [torch.Size([1, 8, 32])]
    judge = TokenCritic.untrained(TokenCriticConfig(**{name: getattr(CONFIG, name) for name in _SHARED}), seed=0)
    assert judge(torch.zeros_like(ids), grid=Grid(t=2, h=4, w=4), condition=None).shape == (1, 32)


_SHARED = ("vocabulary", "stack", "extents", "num_classes", "group", "token_dim")


def test_a_grouped_model_learns_every_token_of_a_box_by_itself() -> None:
    """Three videos by label: after a short training the drawn ids are the learned ones."""
    torch.manual_seed(0)
    model = MaskGIT.untrained(replace(CONFIG, null_probability=0.0), seed=0).train()
    grid, ids = Grid(t=2, h=4, w=4), torch.randint(30, (3, 32), generator=torch.Generator().manual_seed(1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        hidden = torch.rand(ids.shape) < torch.rand(3, 1).clamp(min=0.1)
        hidden[:, 0] = True
        features = model(ids.masked_fill(hidden, 30), grid=grid, condition=model.condition(labels=[0, 1, 2]))
        loss = model.loss(features[hidden], ids[hidden]).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.eval()
    found = sample(
        model,
        grid=grid,
        condition=model.condition(labels=[0, 1, 2]),
        steps=4,
        temperature=0.0,
        generator=torch.Generator().manual_seed(0),
    )
    assert (found == ids).float().mean() > 0.95


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"group": (1, 2)}, r"group must be \(t, h, w\)"),
        ({"group": (0, 2, 2)}, r"group must be \(t, h, w\), whole numbers of at least 1"),
        ({"token_dim": 0}, "token_dim must be a whole number of at least 1 or None, got 0"),
        ({"local_depth": 0}, "local_depth must be a whole number of at least 1, got 0"),
        ({"local_windows": ((4, 3),)}, r"odd numbers of rows and columns, a pair a step, got \(\(4, 3\),\)"),
        ({"local_windows": ((3, 3), (3,))}, "local_windows must be odd numbers"),
        ({"local_windows": ()}, "local_windows must be odd numbers"),
    ],
)
def test_what_cannot_be_grouped_is_refused(changed: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        replace(CONFIG, **changed)  # type: ignore[arg-type]


def neighbours(*windows: tuple[int, int]) -> Neighbours:
    torch.manual_seed(0)
    return Neighbours(token_dim=6, hidden_dim=16, depth=2, windows=windows)


@torch.no_grad()
def test_a_token_reads_the_window_around_it_in_its_step_and_those_just_before() -> None:
    grid = Grid(t=4, h=5, w=7)
    layer, features, tokens = neighbours((3, 5), (1, 3)), torch.randn(1, 140, 6), torch.randn(1, 140, 6)
    before = layer(features, tokens, grid).reshape(4, 5, 7, 6)
    for place in ((1, 2, 3), (0, 0, 0), (3, 4, 6)):
        changed = tokens.reshape(4, 5, 7, 6).clone()
        changed[place] += 1
        after = layer(features, changed.reshape(1, 140, 6), grid).reshape(4, 5, 7, 6)
        moved = {tuple(one) for one in ((after - before).abs().amax(-1) > 1e-6).nonzero().tolist()}
        t, y, x = place
        assert moved == {
            (step, row, column)
            for step in range(t, min(t + 2, 4))
            for row in range(max(y - (step == t), 0), min(y + (step == t) + 1, 5))
            for column in range(max(x - 1 - (step == t), 0), min(x + 2 + (step == t), 7))
        }


@torch.no_grad()
def test_steps_of_no_interest_are_left_as_they_are_and_guided_rows_share_what_is_near() -> None:
    grid = Grid(t=4, h=3, w=2)
    layer, features, tokens = neighbours((3, 3), (3, 3), (1, 1)), torch.randn(4, 24, 6), torch.randn(2, 24, 6)
    whole = layer(features, tokens.repeat(2, 1, 1), grid)
    torch.testing.assert_close(layer(features, tokens, grid), whole)
    wanted = torch.zeros(2, 24, dtype=torch.bool)
    wanted[0, 8] = wanted[1, 16] = True  # of steps 1 and 2
    part = layer(features, tokens, grid, wanted)
    torch.testing.assert_close(part[:, 6:18], whole[:, 6:18])
    assert torch.equal(part[:, :6], features[:, :6])
    assert torch.equal(part[:, 18:], features[:, 18:])
    none = layer(features, tokens, grid, torch.zeros_like(wanted))
    assert torch.equal(none[:, 6:], features[:, 6:])


def test_what_moves_on_is_learned_at_full_detail_where_a_position_is_too_narrow() -> None:
    """A step is the one before it, moved by one: sixteen ids of 30 through 8 numbers would be lost."""
    stack = Stack(dim=8, depth=1, num_heads=1, head_dim=8, mlp_dim=16)
    config = replace(CONFIG, stack=stack, group=(2, 4, 4), num_classes=None, extents=(2, 8, 8))
    grid, generator = Grid(t=2, h=8, w=8), torch.Generator().manual_seed(0)
    right = {}
    for name, more in {"with": {"local_dim": 64, "local_windows": ((3, 3), (3, 3))}, "without": {}}.items():
        torch.manual_seed(0)
        model = MaskGIT.untrained(replace(config, **more), seed=0)  # type: ignore[arg-type]
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.0)
        for _ in range(150):
            first = torch.randint(30, (8, 8, 8), generator=generator)
            ids = torch.stack([first, first.roll(1, 2)], 1)
            ids[:, 1, :, 0] = 0
            hidden = torch.zeros(8, 128, dtype=torch.bool)
            hidden[:, 64:] = True
            ids = ids.flatten(1)
            masked = ids.masked_fill(hidden, model.vocab.mask_id)
            features = model(masked, grid=grid, condition=None, wanted=hidden)[hidden]
            found = model.loss(features, ids[hidden])
            optimizer.zero_grad()
            found.loss.backward()
            optimizer.step()
        right[name] = float((found.guesses_NF[:, 0] == ids[hidden]).float().mean())
    assert right["with"] > 0.95
    assert right["without"] < 0.5
