"""Time features, positions, norms, attention and patches against independent implementations."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from osmotic.nn import Context, Fourier, ResidualBlock, Sinusoidal
from osmotic.nn.attention import CrossAttention, SelfAttention
from osmotic.nn.blocks import AttentionBlock, grow, shrink_valid
from osmotic.nn.dit import DiTBlock
from osmotic.nn.mlp import MLPBlock
from osmotic.nn.norm import AdaptiveGroupNorm, GroupNorm, divisor, groups
from osmotic.nn.patches import patchify, unpatchify
from osmotic.nn.positions import sincos


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


# Time features


def test_sinusoidal_features_are_the_formula() -> None:
    t = np.array([0.0, 0.3, 7.0, 999.5])
    w = 10_000.0 ** (-np.arange(32) / 32)
    expected = np.concatenate([np.cos(t[:, None] * w), np.sin(t[:, None] * w)], axis=1)
    # float32 angles up to 1000 carry an error of 1000 * 2^-24 * a few.
    np.testing.assert_allclose(Sinusoidal(64)(torch.tensor(t)).numpy(), expected, atol=3e-4)


@pytest.mark.parametrize("features", [Sinusoidal(128), Fourier(128)], ids=["sinusoidal", "fourier"])
def test_inner_products_depend_only_on_the_time_between(features: nn.Module) -> None:
    base = features(torch.tensor([0.0, 3.0, 40.0]))
    gram = base @ base.T
    for shift in (1.0, 250.0, 900.0):
        moved = features(torch.tensor([0.0, 3.0, 40.0]) + shift)
        torch.testing.assert_close(moved @ moved.T, gram, atol=0.02, rtol=0)
    torch.testing.assert_close(gram.diagonal(), torch.full((3,), 64.0))
    assert gram[0, 1] > gram[0, 2] + 1


def test_times_are_told_apart() -> None:
    embedded = Sinusoidal()(torch.arange(0, 1000.5, 0.5))
    gaps = (embedded[1:] - embedded[:-1]).norm(dim=1)
    assert gaps.min() > 0.1


def test_fourier_features_stay_as_drawn() -> None:
    a, b = Fourier(32, seed=3), Fourier(32, seed=4)
    t = torch.tensor([1.0, 500.0])
    assert torch.equal(a(t), Fourier(32, seed=3)(t))
    assert not torch.allclose(a(t), b(t))
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(t), b(t))
    assert not list(a.parameters())


def test_fourier_frequencies_have_the_stated_bandwidth() -> None:
    cycles = Fourier(20_000, bandwidth=5.0).frequencies * 1000 / (2 * np.pi)
    # Of 10,000 normal draws the standard deviation has a relative error of 1 / sqrt(20,000) = 0.7 %.
    assert abs(float(cycles.std()) / 5 - 1) < 0.03
    assert abs(float(cycles.mean())) < 4 * 5 / 100


@pytest.mark.parametrize("kind", [Sinusoidal, Fourier])
@pytest.mark.parametrize("features", [0, 7, -2])
def test_features_come_in_pairs(kind: type, features: int) -> None:
    with pytest.raises(ValueError, match="even"):
        kind(features)


# Positions


def test_positions_on_a_line_are_sinusoidal_features() -> None:
    torch.testing.assert_close(sincos((9,), 16, torch.device("cpu")), Sinusoidal(16)(torch.arange(9)))


@pytest.mark.parametrize(("grid", "width"), [((3, 5), 16), ((3, 5), 19), ((2, 3, 4), 24), ((1, 1), 8)])
def test_positions_of_a_grid_are_those_of_its_axes(grid: tuple[int, ...], width: int) -> None:
    table = sincos(grid, width, torch.device("cpu"))
    share = 2 * (width // (2 * len(grid)))
    lines = [Sinusoidal(share)(torch.arange(n)) for n in grid]
    for row, point in zip(table, itertools.product(*map(range, grid)), strict=True):
        expected = torch.cat([line[i] for line, i in zip(lines, point, strict=True)])
        torch.testing.assert_close(row[: len(expected)], expected)
        assert not row[len(expected) :].any()


# Norms


def numpy_group_norm(x: np.ndarray, count: int, shown: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    for b, rows in enumerate(np.split(np.arange(x.shape[1]), count) for _ in x):
        for rows_of_group in rows:
            part = x[b, rows_of_group]
            seen = part[:, shown[b]]
            out[b, rows_of_group] = (part - seen.mean()) / np.sqrt(seen.var() + 1e-5)
    return out


@pytest.mark.parametrize("size", [(6,), (3, 4), (2, 3, 2)])
@pytest.mark.parametrize("padded", [False, True])
def test_group_norm(size: tuple[int, ...], padded: bool) -> None:
    x = torch.randn(4, 8, *size) * 3 + 1
    valid = torch.rand(4, *size) > 0.5 if padded else torch.ones(4, *size, dtype=torch.bool)
    valid[:, 0] = True
    norm = GroupNorm(8)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    expected = numpy_group_norm(x.double().numpy(), norm.groups, valid.numpy())
    affine = [p.detach().double().numpy().reshape(-1, *(1,) * len(size)) for p in (norm.weight, norm.bias)]
    y = norm(x, valid.unsqueeze(1) if padded else None)
    np.testing.assert_allclose(y.detach().numpy(), expected * affine[0] + affine[1], atol=2e-5)


@pytest.mark.parametrize("padded", [False, True])
def test_adaptive_group_norm_scales_and_shifts_each_sample(padded: bool) -> None:
    x, vector = torch.randn(4, 8, 3, 5), torch.randn(4, 6)
    valid = torch.rand(4, 1, 3, 5) > 0.3 if padded else None
    adaptive, plain = AdaptiveGroupNorm(8, 6), GroupNorm(8)
    scale, shift = (z[..., None, None] for z in adaptive.modulate(vector).chunk(2, -1))
    torch.testing.assert_close(adaptive(x, vector, valid), (1 + scale) * plain(x, valid) + shift, atol=1e-5, rtol=1e-5)
    for p in adaptive.parameters():
        nn.init.zeros_(p)
    torch.testing.assert_close(adaptive(x, vector, valid), plain(x, valid), atol=1e-6, rtol=1e-6)


def test_adaptive_group_norm_has_the_right_gradient() -> None:
    norm = AdaptiveGroupNorm(4, 3).double()
    x, vector = (torch.randn(*s, dtype=torch.double, requires_grad=True) for s in [(2, 4, 3), (2, 3)])
    assert torch.autograd.gradcheck(norm, (x, vector))
    valid = torch.tensor([[[True, False, True]], [[True, True, False]]])
    assert torch.autograd.gradcheck(lambda *a: norm(*a, valid), (x, vector))


@given(st.integers(1, 600), st.integers(-3, 700))
def test_divisor_is_the_largest_below_the_bound(number: int, bound: int) -> None:
    d = divisor(number, bound)
    assert number % d == 0
    assert d <= max(1, bound)
    assert not any(number % k == 0 for k in range(d + 1, min(number, bound) + 1))


@pytest.mark.parametrize(("channels", "count"), [(1, 1), (8, 2), (48, 12), (64, 16), (128, 32), (512, 32), (36, 9)])
def test_groups_hold_four_channels_or_more(channels: int, count: int) -> None:
    assert groups(channels) == count


# Attention


def numpy_attention(q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, mask: np.ndarray) -> np.ndarray:
    out = np.empty_like(q)
    size = q.shape[-1] // heads
    for b, h in itertools.product(range(len(q)), range(heads)):
        part = slice(h * size, (h + 1) * size)
        scores = q[b, :, part] @ k[b][mask[b]][:, part].T / np.sqrt(size)
        weights = np.exp(scores - scores.max(1, keepdims=True))
        out[b, :, part] = weights / weights.sum(1, keepdims=True) @ v[b][mask[b]][:, part]
    return out


@pytest.mark.parametrize("masked", [False, True])
def test_self_attention(masked: bool) -> None:
    attention, x = SelfAttention(12, 3).double(), torch.randn(2, 7, 12, dtype=torch.double)
    valid = torch.rand(2, 7) > 0.4 if masked else torch.ones(2, 7, dtype=torch.bool)
    valid[:, 3] = True
    q, k, v = np.split(attention.read(x).detach().numpy(), 3, axis=-1)
    mixed = torch.from_numpy(numpy_attention(q, k, v, 3, valid.numpy()))
    torch.testing.assert_close(attention(x, valid if masked else None), attention.write(mixed))


def test_cross_attention() -> None:
    attention = CrossAttention(12, 3, 5).double()
    x, tokens = torch.randn(2, 7, 12, dtype=torch.double), torch.randn(2, 4, 5, dtype=torch.double)
    mask = torch.tensor([[True, False, True, True], [False, False, False, True]])
    k, v = np.split(attention.read(tokens).detach().numpy(), 2, axis=-1)
    mixed = torch.from_numpy(numpy_attention(attention.ask(x).detach().numpy(), k, v, 3, mask.numpy()))
    torch.testing.assert_close(attention(x, tokens, mask), attention.write(mixed))


# Blocks


def test_blocks_start_as_the_identity() -> None:
    context = Context(torch.randn(2, 6), torch.randn(2, 3, 6), torch.ones(2, 3, dtype=torch.bool), None, None)
    plane, line, flat = torch.randn(2, 8, 3, 5), torch.randn(2, 7, 8), torch.randn(2, 8)
    assert torch.equal(ResidualBlock(2, 8, 8, 6, 0.0)(plane, context.vector), plane)
    assert torch.equal(AttentionBlock(8, 4, tokens=6)(plane, context), plane)
    assert torch.equal(DiTBlock(8, 2, 6, tokens=True, dropout=0.0)(line, context), line)
    assert torch.equal(MLPBlock(8, 8, 6, 0.0)(flat, context.vector), flat)


def test_a_residual_block_that_changes_width_starts_as_its_shortcut() -> None:
    block, x = ResidualBlock(2, 8, 12, 6, 0.0), torch.randn(2, 8, 3, 5)
    expected = torch.einsum("oi,bihw->bohw", block.past.weight[..., 0, 0], x) + block.past.bias[:, None, None]
    torch.testing.assert_close(block(x, torch.randn(2, 6)), expected)


@pytest.mark.parametrize("size", [(1,), (6,), (7,), (5, 8), (3, 2, 1)])
def test_growing_repeats_neighbours_and_meets_the_exact_size(size: tuple[int, ...]) -> None:
    coarse = np.random.default_rng(0).normal(size=(2, 3, *(-(-n // 2) for n in size))).astype(np.float32)
    expected = coarse
    for axis, n in enumerate(size, start=2):
        expected = np.take(np.repeat(expected, 2, axis=axis), range(n), axis=axis)
    np.testing.assert_array_equal(grow(torch.from_numpy(coarse), torch.Size(size)).numpy(), expected)


def test_a_coarse_position_is_real_where_any_fine_one_is() -> None:
    valid = torch.tensor([[[True, False, False, False, True]]])
    assert shrink_valid(valid).tolist() == [[[True, False, True]]]
    plane = torch.zeros(1, 1, 3, 4, dtype=torch.bool)
    plane[0, 0, 2, 1] = True
    assert shrink_valid(plane)[0, 0].tolist() == [[False, False], [True, False]]


# Patches

sizes = st.lists(st.tuples(st.integers(1, 7), st.integers(1, 4)), min_size=1, max_size=3)


@settings(max_examples=60, deadline=None)
@given(sizes, st.integers(1, 3))
def test_patches_put_together_are_the_data(axes: list[tuple[int, int]], channels: int) -> None:
    size, patch = zip(*axes, strict=True)
    x = torch.randn(2, channels, *size)
    assert torch.equal(unpatchify(patchify(x, patch), patch, size), x)


def test_a_patch_is_a_piece_of_the_data() -> None:
    x = torch.randn(2, 3, 5, 8)
    patches = patchify(x, (2, 3))
    assert patches.shape == (2, 9, 18)
    padded = torch.zeros(2, 3, 6, 9)
    padded[:, :, :5, :8] = x
    for n, (i, j) in enumerate(itertools.product(range(3), range(3))):
        piece = padded[:, :, 2 * i : 2 * i + 2, 3 * j : 3 * j + 3]
        assert torch.equal(patches[:, n], piece.flatten(1))


@pytest.mark.parametrize("shape", [(7,), (5, 6), (3, 4, 2)])
@pytest.mark.parametrize("reads", ["itself", "tokens"])
def test_attention_finds_every_place(shape, reads):
    # A constant input says nothing of where a position is: what differs between positions is the place alone.
    torch.manual_seed(0)
    block = AttentionBlock(32, 16, 8)
    for module in (block.attention, block.cross):
        nn.init.normal_(module.write.weight)
        nn.init.zeros_(module.write.bias)
    nn.init.zeros_((block.cross if reads == "itself" else block.attention).write.weight)
    context = Context(torch.zeros(1, 8), torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool), None, None)
    with torch.no_grad():
        found = block(torch.ones(1, 32, *shape), context).flatten(2)[0].T
    apart = torch.cdist(found, found) + torch.eye(len(found))
    assert apart.min() > 1e-3
