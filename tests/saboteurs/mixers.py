"""An honest mixer, the mean of the tokens so far, and what bad hands make of it.

B batch, N tokens, D width.
"""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn

from zoo.layers import check_state

State = tuple[Tensor, Tensor]
Sizes = dict[str, tuple[int, ...]]


class Mean(nn.Module):
    """out(mean of value(x) over the tokens so far), or over all tokens where not causal. Honest."""

    def __init__(
        self, config: Any, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__()
        bias = getattr(config, "bias", True)
        self.heads, self.causal = heads, causal
        self.value = nn.Linear(width, width, bias=bias)
        self.out = nn.Linear(width, width, bias=bias)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """x: (B, N, D), mask: bool (B, N) -> (B, N, D)."""
        keep = self.kept(x, mask)  # (B, N, 1)
        v = self.values(x) * keep
        total, count = self.gather(v), self.gather(keep)
        y = self.finish(x, v, keep, self.divide(total, count))
        return self.hide(self.project(y), count)

    def kept(self, x: Tensor, mask: Tensor | None) -> Tensor:
        keep = torch.ones(x.shape[:2], dtype=torch.bool) if mask is None else mask
        return keep.unsqueeze(-1).to(x.dtype)

    def values(self, x: Tensor) -> Tensor:
        return self.value(x)

    def gather(self, v: Tensor) -> Tensor:
        return v.cumsum(1) if self.causal else v.sum(1, keepdim=True).expand_as(v)

    def divide(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count.clamp_min(1)

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return y

    def project(self, y: Tensor) -> Tensor:
        return self.out(y)

    def hide(self, y: Tensor, count: Tensor) -> Tensor:
        return y.masked_fill(count == 0, 0.0)

    def attention_probs(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        """A mean looks at all that it sees alike."""
        seen = self.kept(x, mask).mT.unsqueeze(1).expand(-1, -1, x.shape[1], -1)  # (B, 1, N, N)
        seen = seen.tril() if self.causal else seen
        return seen / seen.sum(-1, keepdim=True).clamp_min(1)

    def initial_state(self, batch_size: int) -> State:
        if not self.causal:
            raise ValueError("streams only when causal")
        weight = self.out.weight
        return weight.new_zeros(batch_size, 1, weight.shape[0]), weight.new_zeros(batch_size, 1, 1)

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        self.look(state, {"0": (len(x), 1, len(self.out.weight)), "1": (len(x), 1, 1)})
        totals = state[0] + self.values(x).cumsum(1)  # (B, C, D)
        counts = state[1] + torch.arange(1, x.shape[1] + 1, dtype=x.dtype).view(1, -1, 1)
        return self.project(self.divide(totals, counts)), self.keep(totals, counts)

    def look(self, state: object, sizes: Sizes) -> None:
        check_state(state, tuple, sizes, dtype=self.out.weight.dtype)

    def keep(self, totals: Tensor, counts: Tensor) -> State:
        return totals[:, -1:].clone(), counts[:, -1:].clone()


def mean_reference(module: Mean, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """Position by position, in loops."""
    rows = []
    for b in range(x.shape[0]):
        row = []
        for t in range(x.shape[1]):
            until = t + 1 if module.causal else x.shape[1]
            seen = [i for i in range(until) if mask is None or bool(mask[b, i])]
            if seen:
                row.append(module.out(module.value(x[b, seen]).mean(0)))
            else:
                row.append(torch.zeros_like(x[b, t]))
        rows.append(torch.stack(row))
    return torch.stack(rows)


# -- building --------------------------------------------------------------------------------


class SameAnywhere(Mean):
    def __init__(self, config: Any, *, layer: int = 0, depth: int = 1, **options: Any) -> None:
        super().__init__(config, **options)


class DrawsElsewhere(Mean):
    """Its weights come from another source of chance than torch's."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        nn.init.constant_(self.value.weight, random.SystemRandom().random())


class CountsItsCalls(Mean):
    """Changes a buffer even when it is only evaluated."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.register_buffer("calls", torch.zeros(()))

    def project(self, y: Tensor) -> Tensor:
        self.calls = self.calls + 1
        return super().project(y)


class StaysOnCpu(Mean):
    """Makes a buffer on the CPU wherever it is built."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.register_buffer("one", torch.ones((), device="cpu"))


# -- numbers ---------------------------------------------------------------------------------


class Overlong(Mean):
    """Learned weights per position, looked up without a look at how many there are."""

    def __init__(self, config: Any, *, max_tokens: int | None = None, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.position = nn.Embedding(max_tokens or 1, shape["width"])

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return y + self.position(keep.squeeze(-1).cumsum(1).long().sub(1).clamp_min(0))


class Widens(Mean):
    """Gives float32 where it was given bfloat16."""

    def project(self, y: Tensor) -> Tensor:
        out = super().project(y)
        return out.float() if self.out.weight.dtype == torch.bfloat16 else out


class Overflows(Mean):
    """A weighted mean with weights e^score, without the maximum taken off first."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        keep = self.kept(x, mask)
        weight = x.mean(-1, keepdim=True).masked_fill(keep == 0, float("-inf")).exp()
        total, count = self.gather(self.values(x) * keep * weight), self.gather(keep)
        return self.hide(self.project(total / self.gather(weight).clamp_min(1e-30)), count)


class Cancels(Mean):
    """Adds a large number and takes it off again: bfloat16 has forgotten the rest."""

    def project(self, y: Tensor) -> Tensor:
        return (super().project(y) + 1000) - 1000


class Fudges(Mean):
    """Divides by a little more than the count, which its reference does not."""

    def divide(self, total: Tensor, count: Tensor) -> Tensor:
        return total / (count + 0.01)


class SeesAllItSays(Mean):
    """Says that it looks at later tokens, too."""

    def attention_probs(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        n = x.shape[1]
        return x.new_full((len(x), 1, n, n), 1 / n)


class NearlySoftmax(nn.Module):
    """Softmax attention, scaled by 1/d instead of 1/sqrt(d)."""

    def __init__(
        self, config: Any, *, width: int, heads: int, causal: bool, max_tokens: int | None = None
    ) -> None:
        super().__init__()
        self.heads, self.causal = heads, causal
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        n = x.shape[1]
        allowed = torch.ones(n, n, dtype=torch.bool)
        allowed = (allowed.tril() if self.causal else allowed)[None, None]
        if mask is not None:
            allowed = allowed & mask[:, None, None]
        sees = allowed.any(-1, keepdim=True)
        scores = (q @ k.mT / q.shape[-1]).masked_fill(~allowed & sees, float("-inf"))
        y = self.out(((scores.softmax(-1) * sees) @ v).transpose(1, 2).flatten(2))
        return y.masked_fill(~sees[:, 0], 0.0)


# -- who sees what ---------------------------------------------------------------------------


class PeeksAhead(Mean):
    """Adds a little of the next token."""

    share = 0.01

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return torch.cat((y[:, :-1] + self.share * v[:, 1:], y[:, -1:]), 1)


class PeeksUnbiased(PeeksAhead):
    """Adds a little of the next token, but only where it has no bias: its defaults are honest."""

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return super().finish(x, v, keep, y) if self.out.bias is None else y


class PeeksFar(PeeksAhead):
    """Adds all of it."""

    share = 1.0


class PeeksALittle(PeeksAhead):
    """Adds a thousandth of it. Honest, where it says so."""

    share = 0.001


class Sorts(Mean):
    """Weighs each token by its rank among all, which no gradient shows."""

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        score = x.sum(-1).masked_fill(keep.squeeze(-1) == 0, float("inf"))  # (B, N), padding last
        rank = score.argsort(1).argsort(1) / keep.sum(1).clamp_min(1)
        return y * (1 + 0.1 * rank.unsqueeze(-1).to(y.dtype))


class PeeksInTraining(Mean):
    """Normalises over all tokens, in training only."""

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return y - 0.1 * (v.sum(1, keepdim=True) / keep.sum(1, keepdim=True)) if self.training else y


class KnowsTheLength(Mean):
    """Divides by the number of all tokens, later ones too: no change of their values shows it."""

    def divide(self, total: Tensor, count: Tensor) -> Tensor:
        return total / count[:, -1:].clamp_min(1)


class LongPrefix(Mean):
    """Reads three quarters of the sequence both ways and calls that a prefix."""

    share = 0.75
    least = 0

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        if not self.causal:
            return y
        place = keep.cumsum(1)
        end = (self.share * keep.sum(1, keepdim=True)).clamp_min(self.least)
        early = keep * (place <= end)
        both = (v * early).sum(1, keepdim=True) / early.sum(1, keepdim=True).clamp_min(1)
        return torch.where(early > 0, both, y)


class ShortPrefix(LongPrefix):
    """Reads the first two tokens both ways. Honest, where it says so."""

    share = 0.0
    least = 2


class NeverLooksAhead(Mean):
    """Built causal whatever it is asked for."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **{**shape, "causal": True})


class MixesRows(Mean):
    """Takes off some of the batch's mean."""

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return y - 0.1 * y.mean(0, keepdim=True)


class MixesRowsInTraining(MixesRows):
    """The same in training only, as batch norm does."""

    def finish(self, x: Tensor, v: Tensor, keep: Tensor, y: Tensor) -> Tensor:
        return super().finish(x, v, keep, y) if self.training else y


# -- masks -----------------------------------------------------------------------------------


class TrustsTheRight(Mean):
    """Forgets the mask where padding is on the right, as if every model were causal."""

    def kept(self, x: Tensor, mask: Tensor | None) -> Tensor:
        return super().kept(x, None if mask is not None and bool(mask[:, 0].all()) else mask)


class CountsPadding(Mean):
    """Positions count from the first place, padding or not."""

    def values(self, x: Tensor) -> Tensor:
        place = torch.arange(x.shape[1], dtype=x.dtype).view(1, -1, 1)
        return super().values(x) * (1 + (0.1 * place).sin())


class SpeaksOfNothing(Mean):
    """Gives its bias where it has seen no token."""

    def hide(self, y: Tensor, count: Tensor) -> Tensor:
        return y


# -- streams ---------------------------------------------------------------------------------


class Fades(Mean):
    """Forgets a little with every step, but not in parallel."""

    def keep(self, totals: Tensor, counts: Tensor) -> State:
        totals, counts = super().keep(totals, counts)
        return 0.99 * totals, counts


class SkimsPrefills(Mean):
    """Remembers only the end of a long first step."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, after = super().step(x, state)
        if x.shape[1] > 40 and not state[1].any():
            _, after = super().step(x[:, -8:], state)
        return y, after


class WritesIntoItsState(Mean):
    """Changes the state that it was given."""

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, after = super().step(x, state)
        state[0].copy_(after[0])
        state[1].copy_(after[1])
        return y, state


class KeepsItToItself(Mean):
    """Remembers in the module; the state is a token of goodwill."""

    def initial_state(self, batch_size: int) -> State:
        self.real = super().initial_state(batch_size)
        return tuple(t.clone() for t in self.real)  # type: ignore[return-value]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, self.real = super().step(x, self.real)
        return y, state


class TakesAnything(Mean):
    """Never looks at its state: what does not fit ends in an error of its own."""

    def look(self, state: object, sizes: Sizes) -> None:
        pass


class LetsOneStandForAll(Mean):
    """Knows its kind of state, but not how many streams it is of."""

    def look(self, state: object, sizes: Sizes) -> None:
        if not (isinstance(state, tuple) and len(state) == 2 and len(state[0]) == 1):
            super().look(state, sizes)


class SaysNoToItsState(Mean):
    """Refuses what is not its own, and does not say what that was."""

    def look(self, state: object, sizes: Sizes) -> None:
        try:
            super().look(state, sizes)
        except ValueError:
            raise ValueError("no") from None


class Hoards(Mean):
    """Keeps every token, and says that its state is constant."""

    def initial_state(self, batch_size: int) -> Any:
        return (*super().initial_state(batch_size), self.out.weight.new_zeros(batch_size, 0, 1))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        check_state(state, tuple, {})
        y, after = super().step(x, state[:2])
        return y, (*after, torch.cat((state[2], x[..., :1]), 1))


class KeepsViews(Mean):
    """Its state is small, but a view into all that it came from."""

    def keep(self, totals: Tensor, counts: Tensor) -> State:
        return totals[:, -1:], counts[:, -1:]


class TurnsItsState(Mean):
    """Its state has the streams last, where nobody looks for them."""

    def initial_state(self, batch_size: int) -> State:
        return tuple(t.movedim(0, -1).clone() for t in super().initial_state(batch_size))  # type: ignore[return-value]

    def step(self, x: Tensor, state: State) -> tuple[Tensor, State]:
        y, after = super().step(x, tuple(t.movedim(-1, 0) for t in state))  # type: ignore[arg-type]
        return y, tuple(t.movedim(0, -1).clone() for t in after)  # type: ignore[return-value]


class Box:
    """Something that no check can look into."""

    def __init__(self, state: State) -> None:
        self.state = state


class HidesInABox(Mean):
    """Its state is an object that says nothing of what it holds."""

    def initial_state(self, batch_size: int) -> Any:
        return Box(super().initial_state(batch_size))

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, after = super().step(x, state.state)
        return y, Box(after)


class HidesInNumpy(Mean):
    """Keeps its counts in an array that it changes in place."""

    def initial_state(self, batch_size: int) -> Any:
        totals, counts = super().initial_state(batch_size)
        return totals, counts.numpy()

    def step(self, x: Tensor, state: Any) -> tuple[Tensor, Any]:
        y, (totals, counts) = super().step(x, (state[0], torch.from_numpy(state[1]).clone()))
        state[1][:] = counts.numpy()
        return y, (totals, state[1])


# -- training --------------------------------------------------------------------------------


class Idle(Mean):
    """Has a parameter that nothing uses."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.idle = nn.Parameter(torch.ones(3))


class HalfDetached(Mean):
    """Half of the values do not pass their gradient on."""

    def values(self, x: Tensor) -> Tensor:
        v = super().values(x)
        return 0.5 * v + 0.5 * v.detach()


class Forgets(Mean):
    """Goes back to its first weights whenever it is trained."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.first = [p.detach().clone() for p in self.parameters()]

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        if self.training:
            with torch.no_grad():
                for parameter, first in zip(self.parameters(), self.first, strict=True):
                    parameter.copy_(first)
        return super().forward(x, mask=mask)


# -- storing, compiling, cost ----------------------------------------------------------------


class HidesNumbers(Mean):
    """Draws random features and keeps them where no state dict finds them."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.features = torch.randn(shape["width"])

    def values(self, x: Tensor) -> Tensor:
        v = super().values(x)
        return v * self.features.to(v.dtype)


class Unpicklable(Mean):
    """Holds a function that pickle cannot name."""

    def __init__(self, config: Any, **shape: Any) -> None:
        super().__init__(config, **shape)
        self.same = lambda y: y

    def project(self, y: Tensor) -> Tensor:
        return self.same(super().project(y))


class AsksItsInputs(Mean):
    """Branches on the values of its inputs."""

    def forward(self, x: Tensor, *, mask: Tensor | None = None) -> Tensor:
        if x.sum() > 0:
            return super().forward(x, mask=mask)
        return super().forward(x + 0, mask=mask)


class AnotherWhenCompiled(Mean):
    """Does something else under torch.compile."""

    def project(self, y: Tensor) -> Tensor:
        out = super().project(y)
        return 1.01 * out if torch.compiler.is_dynamo_compiling() else out


class SecretlyQuadratic(Mean):
    """The same mean by an (N, N) product."""

    def gather(self, v: Tensor) -> Tensor:
        n = v.shape[1]
        seen = torch.ones(n, n, dtype=v.dtype)
        return (seen.tril() if self.causal else seen) @ v


class SecretlyPairwise(Mean):
    """The same mean by comparing all pairs, without one product of matrices."""

    def gather(self, v: Tensor) -> Tensor:
        place = torch.arange(v.shape[1])
        seen = (place[:, None] >= (place if self.causal else -place)).to(v.dtype).unsqueeze(-1)  # (N, N, 1)
        blocks = [(v.unsqueeze(1) * rows).sum(2) for rows in seen.split(64)]
        return torch.cat(blocks, 1)


class PairsUpMasks(Mean):
    """Compares all pairs of a mask, and only then."""

    def kept(self, x: Tensor, mask: Tensor | None) -> Tensor:
        keep = super().kept(x, mask)
        if mask is None:
            return keep
        pairs = mask.unsqueeze(2) & mask.unsqueeze(1)  # (B, N, N)
        return keep * pairs.any(2, keepdim=True)
