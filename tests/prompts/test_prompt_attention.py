"""Attention control: whose maps a target has, that sources and the network stay as they were, and every sampler."""

import math

import pytest
import torch
from nn_family import MLP as Perceptron
from nn_family import settled
from prompt_toys import GRIDS, MORE, SMALL, SOURCE, SWAP, B, denoiser, edit, grid, noise, told

from osmotic import schedules
from osmotic.brownian import Brownian
from osmotic.denoiser import NeuralDenoiser, Rescheduled
from osmotic.estimate import V
from osmotic.guidance import CFGPlusPlus, ClassifierFree, Interval, Rescale, composed
from osmotic.inversion import Stepwise, decode, encode
from osmotic.nn import Embedding, UNet
from osmotic.nn.attention import CrossAttention, SelfAttention
from osmotic.noise import generators
from osmotic.phase import CLD
from osmotic.prompts import Common, Pair, Shared, retold, twice
from osmotic.prompts.shared import alike
from osmotic.samplers import CATALOG, RK45, sample

FLOW_MAPS = {"jump", "consistency"}
ADAPTIVE = {"rk45", "dpm-solver-12", "dpm-solver-23"}
SAMPLERS = {**CATALOG, "rk45": lambda: RK45(1e-2, 1e-2)}  # at a tolerance that a rough network meets soon
NEAR = 1e-9
ALL = {"cross": 1.0, "within": 1.0, "mean": 1.0}
NONE = {"cross": 0.0, "within": 0.0, "mean": 0.0}


def gap(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(((a - b).abs().max() / b.abs().max()).detach())


def reading(module: CrossAttention | SelfAttention, length: int) -> CrossAttention | SelfAttention:
    """The module with values and output such that what it gives is its map: one head, one-hot values."""
    with torch.no_grad():
        start = module.read.out_features - length
        for layer in (module.read, module.write):
            layer.bias.zero_()
        module.read.weight[start:] = torch.eye(length, module.read.in_features)
        module.write.weight.copy_(torch.eye(length))
    return module


@pytest.mark.parametrize(
    ("target", "scales"), [(SOURCE, {}), (SWAP, {}), (MORE, {}), (MORE, {"w7": 3.0, "w4": 0.5}), (SOURCE, {"w4": -2.0})]
)
def test_the_targets_map_is_the_sources_for_shared_tokens_and_its_own_for_new_ones(target, scales):
    """Read out of an attention whose values are one-hot; nothing is normalised after."""
    base = denoiser()
    change = edit(SOURCE, target, **scales)
    shared = Shared(base, [change], **ALL)
    length = 6  # the null and five tokens
    torch.manual_seed(0)
    cross = reading(CrossAttention(length, 1, length).double(), length)
    shared._across = (cross,)
    tokens = torch.eye(length, dtype=torch.float64).expand(2 * B, -1, -1)  # values read off the tokens
    x = torch.randn(2 * B, 7, length, dtype=torch.float64)
    n = {0: len(SOURCE), 1: len(target)}
    mask = torch.stack([torch.arange(length) <= n[i % 2] for i in range(2 * B)])
    mask[:, 0] = False
    alone = cross(x, tokens, mask)
    assert torch.allclose(alone.sum(-1), torch.ones((), dtype=torch.float64))  # it is a map
    rows = [torch.stack([told(SOURCE).tokens[0], told(target).tokens[0]] * B)]
    with_control = _call(shared, cross, (x, tokens, mask), rows[0])
    own, carried = alone[1::2], alone[0::2]
    expected = torch.zeros_like(own)
    for j, word in enumerate(target):
        new = word not in SOURCE and not (target == SWAP and j == 1)
        i = j if new or word not in SOURCE else SOURCE.index(word)
        expected[..., j + 1] = (own[..., j + 1] if new else carried[..., i + 1]) * scales.get(f"w{word}", 1.0)
    assert torch.equal(with_control[0::2], alone[0::2])
    assert torch.allclose(with_control[1::2], expected, atol=1e-12)
    if scales:
        assert not torch.allclose(with_control[1::2].sum(-1), torch.ones((), dtype=torch.float64))


def _call(shared, module, inputs, tokens):
    """What an attention module gives while the network is being called."""
    found = []

    class Spy(torch.nn.Module):
        def forward(self, x, time, cond=None):
            found.append(module(*inputs))
            return x

    shared.denoiser.network = Spy()
    cond = told(SOURCE, len(tokens))
    shared(
        torch.zeros(len(tokens), *SMALL.shape, dtype=torch.float64),
        torch.tensor(0.9, dtype=torch.float64),
        type(cond)(tokens=tokens, mask=cond.mask),
    )
    return found[0]


def test_self_attention_maps_are_the_sources_on_the_targets_values():
    shared = Shared(denoiser(), [edit(SOURCE, SWAP)], **ALL)
    torch.manual_seed(0)
    module = SelfAttention(6, 2).double()
    shared._along = (module,)
    x = torch.randn(2 * B, 7, 6, dtype=torch.float64)
    valid = torch.rand(2 * B, 7) > 0.3
    valid[1::2] = valid[0::2]
    valid[:, 0] = True
    found = _call(shared, module, (x, valid), torch.stack([told(SOURCE).tokens[0], told(SWAP).tokens[0]] * B))
    q, k, v = (z.unflatten(-1, (2, 3)).transpose(1, 2) for z in module.read(x).chunk(3, -1))
    scores = (q @ k.mT / math.sqrt(3)).masked_fill(~valid[:, None, None], -math.inf).softmax(-1)
    scores = scores[0::2].repeat_interleave(2, 0)
    assert torch.allclose(found, module.write((scores @ v).transpose(1, 2).flatten(2)), atol=1e-12)


def drawn(name: str, around, cond, x):
    """Samples of a sampler of the catalogue, and its noise."""
    times = grid(around.schedule)
    keyed = generators(1, range(B))
    if isinstance(around, Pair):
        return sample(SAMPLERS[name](), around, twice(x), times, cond, Common(keyed))
    return sample(SAMPLERS[name](), around, x, times, cond, keyed)


@pytest.mark.parametrize("name", list(SAMPLERS))
def test_under_every_sampler_equal_texts_share_all_and_none_shares_nothing(name):
    base, x = denoiser(aims=name in FLOW_MAPS), noise()
    near = 0.05 if name in ADAPTIVE else NEAR  # their steps are chosen for both together
    source, target = told(SOURCE, B), told(MORE, B)
    plain = {ids: drawn(name, base, cond, x) for ids, cond in (("source", source), ("target", target))}
    assert gap(plain["source"], plain["target"]) > 1e-5
    same = drawn(name, Pair(Shared(base, [edit(SOURCE, SOURCE)], **ALL), told(SOURCE)), source, x)
    assert gap(same[:, 1], same[:, 0]) < NEAR
    assert gap(same[:, 0], plain["source"]) < NEAR
    apart = drawn(name, Pair(Shared(base, [edit(SOURCE, MORE)], **NONE), told(SOURCE)), target, x)
    assert gap(apart[:, 1], plain["target"]) < near
    mixed = drawn(name, Pair(Shared(base, [edit(SOURCE, MORE)], 0.8, 0.4, 0.1), told(SOURCE)), target, x)
    assert gap(mixed[:, 0], plain["source"]) < near
    assert gap(mixed[:, 1], plain["target"]) > 1e-5


@pytest.mark.parametrize("path", list(schedules.CATALOG))
def test_the_way_is_measured_alike_on_every_path(path):
    """Shares of 0 and 1 are nothing and all of it, and rescheduling changes nothing."""
    base, change = denoiser(path=path), [edit(SOURCE, SWAP)]
    source, target, x = told(SOURCE), told(SWAP, B), noise()
    for level in (1.0, 0.7, 0.3, 0.02):
        t = torch.tensor(level * base.start, dtype=torch.float64)
        plain = base(x, t, target).x0
        assert gap(Pair(Shared(base, change, **NONE), source)(twice(x), t, target).x0[:, 1], plain) < NEAR
        assert gap(Pair(Shared(base, change, **ALL), source)(twice(x), t, target).x0[:, 1], plain) > 1e-6
    other = schedules.VP()
    t = torch.tensor(0.5, dtype=torch.float64)
    inside = Rescheduled(Shared(base, change, 0.5, 0.3, 0.2), other)
    outside = Shared(Rescheduled(base, other), change, 0.5, 0.3, 0.2)
    one, two = (Pair(d, source)(twice(x), t, target) for d in (inside, outside))
    assert gap(one.x0, two.x0) < 1e-6


def test_samples_at_times_of_their_own_are_shared_each_for_itself():
    base = denoiser()
    pair, target, x = (
        Pair(Shared(base, [edit(SOURCE, MORE)], 0.6, 0.5, 0.4), told(SOURCE)),
        told(MORE, B),
        twice(noise()),
    )
    t = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    together = pair(x, t, target)
    alone = [pair(x[i : i + 1], t[i], target[torch.tensor([i])]).x0 for i in range(B)]
    assert gap(together.x0, torch.cat(alone)) < NEAR


GUIDES = {
    "scale-0": lambda d: ClassifierFree(d, 0.0),
    "scale-1": lambda d: ClassifierFree(d, 1.0),
    "scale-3": lambda d: ClassifierFree(d, 3.0),
    "negative": lambda d: ClassifierFree(d, 3.0, told([8, 2])),
    "interval": lambda d: Interval(ClassifierFree(d, 3.0), 0.3, 3.0),
    "rescale": lambda d: Rescale(ClassifierFree(d, 3.0), 0.7),
    "composed": lambda d: composed(d, [told(SOURCE), told([8, 2])], [2.0, 1.0]),
}


@pytest.mark.parametrize("name", list(GUIDES))
def test_guidance_goes_around_it(name):
    """Equal texts shared whole, and unequal ones not at all, are plain guided samples; sources always are."""
    guide, base, x = GUIDES[name], denoiser(), noise()
    target = told(MORE, B)
    plain, first = (drawn("ddpm", guide(base), cond, x) for cond in (target, retold(target, told(SOURCE))))
    same = drawn("ddpm", Pair(guide(Shared(base, [edit(MORE, MORE)], **ALL)), told(MORE)), target, x)
    assert gap(same, twice(plain)) < NEAR
    apart = drawn("ddpm", Pair(guide(Shared(base, [edit(SOURCE, MORE)], **NONE)), told(SOURCE)), target, x)
    assert gap(apart, torch.stack([first, plain], 1)) < NEAR
    mixed = drawn("ddpm", Pair(guide(Shared(base, [edit(SOURCE, MORE)], 1.0, 0.5, 0.1)), told(SOURCE)), target, x)
    assert gap(mixed[:, 0], first) < NEAR
    if name == "scale-0":  # nobody is told anything, so there is nothing to share
        assert gap(mixed[:, 1], plain) < NEAR
    elif name != "composed":
        assert gap(mixed[:, 1], plain) > 1e-3


@pytest.mark.parametrize("scale", [0.0, 1.0, 3.0])
def test_a_guided_pair_is_the_combination_of_its_views(scale):
    """The conditional view of controlled pairs, minus the negative one's, where only self-attention is shared."""
    base, x, t = denoiser(), twice(noise()), torch.tensor(0.7, dtype=torch.float64)
    target, away = told(MORE, B), told([8, 2])
    shared = Shared(base, [edit(SOURCE, MORE)], 1.0, 1.0, 0.0)
    found = Pair(ClassifierFree(shared, scale, away), told(SOURCE))(x, t, target)
    towards = Pair(shared, told(SOURCE))(x, t, target)
    free = Shared(base, [edit([8, 2], MORE)], 0.0, 1.0, 0.0)
    # The negative serves all rows, whose class is then its own.
    negative = Pair(free, away)(x, t, away[torch.zeros(B, dtype=torch.long)])
    assert gap(found.x0, negative.lerp(towards, scale).x0) < NEAR


def test_sources_without_guidance_come_from_the_same_forward_pass():
    base, x, target = denoiser(), noise(), told(MORE, B)
    shared = Shared(base, [edit(SOURCE, MORE)], 1.0, 0.5, 0.1)
    led, followed = (Pair(ClassifierFree(shared, 3.0), told(SOURCE), led=led) for led in (True, False))
    calls = []
    base.network.register_forward_hook(lambda *a: calls.append(len(a[2])))
    t = torch.tensor(0.6, dtype=torch.float64)
    one, two = led(twice(x), t, target), followed(twice(x), t, target)
    assert calls == [4 * B, 4 * B]
    assert torch.equal(one.x0[:, 1], two.x0[:, 1])
    assert gap(two.x0[:, 0], base(x, t, retold(target, told(SOURCE))).x0) < NEAR
    assert gap(two.eps[:, 0], one.eps[:, 0]) > 1e-3
    # So a picture comes back from its noise beside what is made of it.
    was = retold(target, told(SOURCE))
    steps = Stepwise(grid(base.schedule, 20), iterations=8)
    back = decode(followed, twice(encode(base, x, was, steps)), target, steps)
    assert gap(back[:, 0], x) < 1e-2
    assert gap(back[:, 1], x) > 1e-3


def test_cfg_plus_plus_renoises_both():
    base, x, target = denoiser(), noise(), told(SWAP, B)
    pair = Pair(CFGPlusPlus(Shared(base, [edit(SWAP, SWAP)], **ALL), 0.6), told(SWAP))
    assert gap(drawn("ddim", pair, target, x), twice(drawn("ddim", CFGPlusPlus(base, 0.6), target, x))) < NEAR


@pytest.mark.parametrize("member", GRIDS, ids=str)
def test_networks_of_every_kind_and_size_with_padding_of_any_length(member):
    base, x, t = denoiser(member), noise(member), torch.tensor(0.8, dtype=torch.float64)
    found = []
    for length in (5, 9):
        shared = Shared(base, [edit(SOURCE, MORE, length)], 1.0, 1.0, 0.0)
        found.append(Pair(shared, told(SOURCE, length=length))(twice(x), t, told(MORE, B, length)).x0)
    plain = base(x, t, told(MORE, B)).x0
    assert gap(found[0], found[1]) < NEAR
    assert gap(found[0][:, 1], plain) > 1e-3
    assert gap(found[0][:, 0], base(x, t, retold(told(MORE, B), told(SOURCE))).x0) < NEAR


def test_edits_of_several_targets_are_told_apart():
    base, x, t = denoiser(), noise(), torch.tensor(0.8, dtype=torch.float64)
    conditions = [told(ids, B)[torch.tensor([i])] for i, ids in enumerate((SWAP, MORE, SWAP))]
    edits = [edit(SOURCE, SWAP), edit(SOURCE, MORE)]
    mixed = Pair(Shared(base, edits, **ALL), told(SOURCE))(twice(x), t, type(conditions[0]).cat(conditions)).x0
    for i, (cond, chosen) in enumerate(zip(conditions, (0, 1, 0), strict=True)):
        alone = Pair(Shared(base, [edits[chosen]], **ALL), told(SOURCE))(twice(x[i : i + 1]), t, cond).x0
        assert gap(mixed[i : i + 1], alone) < NEAR


def test_the_network_is_as_it_was_also_after_an_error():
    base, x, t = denoiser(), noise(), torch.tensor(0.8, dtype=torch.float64)
    target = told(SWAP, B)

    def state():
        return [(name, sorted(module.__dict__), len(module._forward_hooks)) for name, module in base.named_modules()], {
            name: value.clone() for name, value in base.state_dict().items()
        }

    before, plain = state(), base(x, t, target).x0
    pair = Pair(Shared(base, [edit(SOURCE, SWAP)], **ALL), told(SOURCE))
    first = pair(twice(x), t, target).x0

    def fail(*_):
        raise RuntimeError("in the middle")

    handle = base.network.norm.register_forward_hook(fail)
    with pytest.raises(RuntimeError, match="in the middle"):
        pair(twice(x), t, target)
    handle.remove()
    after = state()
    assert after[0] == before[0]
    assert all(torch.equal(after[1][name], value) for name, value in before[1].items())
    assert torch.equal(base(x, t, target).x0, plain)
    assert torch.equal(pair(twice(x), t, target).x0, first)  # two in a row


def test_gradients_pass_through():
    pair = Pair(Shared(denoiser(), [edit(SOURCE, MORE)], **ALL), told(SOURCE))
    x = twice(noise()).requires_grad_()
    pair(x, torch.tensor(0.8, dtype=torch.float64), told(MORE, B)).x0[:, 1].sum().backward()
    assert bool(x.grad[:, 0].any())  # by its maps
    assert bool(x.grad[:, 1].any())


def test_noise_is_one_for_both_and_that_of_the_sample_alone():
    one = Common(generators(3, range(B))).normal((B, 2, 4, 5), "cpu", torch.float64)
    alone = torch.stack([torch.randn(4, 5, generator=g, dtype=torch.float64) for g in generators(3, range(B))])
    assert torch.equal(one, twice(alone))
    latent = Common(generators(3, range(B))).normal((B, 7), "cpu", torch.float32)
    assert latent.shape == (B, 7)
    path = [Brownian(5, range(B)) for _ in range(2)]
    x = torch.zeros(B, 2, 4, dtype=torch.float64)
    pairs = (0.1, 0.99), (0.6, 0.8)
    assert torch.equal(Common(path[0]).increment(x, *pairs), twice(path[1].increment(x[:, 0], *pairs)))


def test_what_cannot_be_controlled_is_one_sentence():
    base, change = denoiser(), [edit(SOURCE, SWAP)]
    mlp = NeuralDenoiser(Perceptron((2,), (16,), embedding=Embedding(20, vocabulary=9)), schedules.VP(), V())
    untold = NeuralDenoiser(settled(SMALL, Embedding(20, classes=3)), schedules.VP(), V())
    for other in (mlp, untold):
        with pytest.raises(ValueError, match="reads a text by cross-attention, and this one has none"):
            Shared(other, change)
    for wrong in ({"cross": 1.1}, {"within": -0.1}, {"mean": math.nan}):
        with pytest.raises(ValueError, match="for shares of the way, in 0 to 1"):
            Shared(base, change, **wrong)
    with pytest.raises(ValueError, match="at least one edit"):
        Shared(base, [])
    base.schedule = CLD()
    with pytest.raises(ValueError, match="Shared needs a path of two numbers"):
        Shared(base, change)
    base.schedule = schedules.VP()
    shared, t = Shared(base, change), torch.tensor(0.5)
    with pytest.raises(ValueError, match="3 samples are no pairs"):
        shared(noise(), t, told(SWAP, B))
    for nothing in (None, type(told(SWAP))(vector=torch.zeros(2, dtype=torch.long))):
        with pytest.raises(ValueError, match="give a condition with tokens"):
            shared(noise()[:2], t, nothing)
    pair = Pair(shared, told(SOURCE))
    with pytest.raises(ValueError, match=r"Pairs are \(B, 2, ...\)"):
        pair(noise(), t, told(SWAP, B))
    with pytest.raises(TypeError, match="osmotic Condition"):
        pair(twice(noise()), t)
    with pytest.raises(ValueError, match="told a text each"):
        Pair(shared, type(told(SWAP))(vector=torch.zeros(1, dtype=torch.long)))
    with pytest.raises(ValueError, match="padded alike"):
        pair(twice(noise()), t, told(SWAP, B, 9))


def test_fine_levels_keep_their_own_self_attention():
    """Where a level has more positions than 16 x 16, self-attention is not shared (and cross-attention is)."""
    net = UNet(3, (8,), 1, blocks=1, attention={0}, head_width=4, embedding=Embedding(20, vocabulary=9)).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in net.parameters():
            p.copy_(torch.randn(p.shape, generator=generator, dtype=p.dtype) * 0.2)
    base, t = NeuralDenoiser(net, schedules.VP(), V()), torch.tensor(0.8, dtype=torch.float64)
    for positions, shared in ((256, True), (257, False)):
        x = torch.randn(2, 3, positions, generator=generator, dtype=torch.float64)
        x = torch.stack([x, x.roll(1, 0)], 1)  # other pictures, so that maps differ
        cond = type(told(SWAP))(tokens=told(SWAP, 2).tokens, mask=told(SWAP, 2).mask)
        pair = Pair(Shared(base, [edit(SOURCE, SWAP)], 0.0, 1.0, 0.0), cond[:1])
        assert (gap(pair(x, t, cond).x0[:, 1], base(x[:, 1], t, cond).x0) > 1e-6) is shared


def test_features_of_an_encoder_are_found_again_whatever_the_batch_that_made_them():
    """They differ in the last bits with the batch, and texts in the first."""
    a, b = (torch.randn(2, 4, 8, generator=torch.Generator().manual_seed(i)) for i in (0, 1))
    assert alike(a, a * (1 + 1e-6)).all()
    assert not alike(a, b).flatten(1).all(1).any()
    ids = torch.tensor([5000, 5001])
    assert alike(ids, ids.flip(0)).tolist() == [False, False]
