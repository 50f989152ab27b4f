"""Greedy, temperature with top-k, top-p and min-p, Mirostat, Top-H. B sequences, V symbols."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from zoo.decoders.base import pick, ranked
from zoo.decoders.config import MirostatConfig, SampleConfig, TopHConfig


class Greedy:
    """The likeliest symbol; of equals the first."""

    def __init__(self, config: None = None) -> None:
        pass

    def initial_state(self, batch_size: int) -> None:
        return None

    def step(self, logits: Tensor, state: None, chance: Tensor) -> tuple[Tensor, None]:
        return logits.argmax(-1), None


class Sample:
    """By chance, among the symbols that pass every test of the config; the likeliest always does."""

    def __init__(self, config: SampleConfig) -> None:
        self.config = config

    def initial_state(self, batch_size: int) -> None:
        return None

    def step(self, logits: Tensor, state: None, chance: Tensor) -> tuple[Tensor, None]:
        config = self.config
        probs, symbols = ranked(logits, config.temperature)
        kept = torch.ones_like(probs, dtype=torch.bool)
        if config.top_k is not None:
            kept[:, config.top_k :] = False
        if config.top_p is not None:  # what stands before it does not reach top_p yet
            kept &= probs.cumsum(-1) - probs < config.top_p
        if config.min_p is not None:
            kept &= probs >= config.min_p * probs[:, :1]
        kept[:, 0] = True
        return pick(probs * kept, symbols, chance), None


class Mirostat:
    """Surprise held near a target (Basu et al. 2021, arXiv 2007.14966), by a limit mu that follows it.

    After each symbol of surprise S: mu <- mu - eta (S - tau), starting at 2 tau. Version 1 (algorithm 1)
    turns mu into a top-k through the exponent of a power law fitted to the likeliest symbols; version 2
    keeps the symbols whose own surprise is at most mu.

    Deviation: mu never falls below the surprise of the likeliest symbol. Where even that one is above the
    target, the target cannot be reached, and mu would fall for ever.
    """

    def __init__(self, config: MirostatConfig) -> None:
        self.config = config
        self.rate = config.rate if config.rate is not None else {1: 1.0, 2: 0.1}[config.version]

    def initial_state(self, batch_size: int) -> Tensor:
        """mu, (B,)."""
        return torch.full((batch_size,), 2 * self.config.target, dtype=torch.float64)

    def step(self, logits: Tensor, state: Tensor, chance: Tensor) -> tuple[Tensor, Tensor]:
        probs, symbols = ranked(logits)
        surprise = -probs.log2()
        limit = torch.maximum(state.to(probs), surprise[:, 0])
        if self.config.version == 1:
            ranks = torch.arange(probs.shape[-1], device=probs.device)
            kept = ranks < self._top_k(probs, limit).unsqueeze(-1)
        else:
            kept = surprise <= limit.unsqueeze(-1)
        chosen = pick(probs * kept, symbols, chance)
        place = (symbols == chosen.unsqueeze(-1)).long().argmax(-1, keepdim=True)
        seen = surprise.gather(-1, place).squeeze(-1)
        return chosen, limit - self.rate * (seen - self.config.target)

    def _top_k(self, probs: Tensor, limit: Tensor) -> Tensor:
        """k = ((s - 1) 2^mu / (1 - V^(1 - s)))^(1 / s), between 1 and V: (B,)."""
        symbols = probs.shape[-1]
        exponent = self._exponent(probs)
        off = exponent - 1
        near_one = off.abs() < 1e-6  # there (s - 1) / (1 - V^(1 - s)) is 1 / ln V
        off = torch.where(near_one, 1.0, off)
        share = torch.where(near_one, 1 / math.log(max(symbols, 2)), off / (1 - symbols ** (-off)))
        wanted = (share.clamp_min(1e-12).log() + limit * math.log(2)) / exponent
        return wanted.exp().nan_to_num(nan=1.0).round().clamp(1, symbols)

    def _exponent(self, probs: Tensor) -> Tensor:
        """s of p_i ~ i^(-s), by least squares through the origin from neighbouring ranks: (B,)."""
        top = probs[:, : self.config.ranks].clamp_min(1e-300).log()
        ranks = torch.arange(1, top.shape[-1] + 1, dtype=top.dtype, device=top.device).log()
        steps, falls = ranks[1:] - ranks[:-1], top[:, :-1] - top[:, 1:]  # t_i and b_i
        if not len(steps):
            return torch.ones_like(probs[:, 0])
        return ((steps * falls).sum(-1) / (steps * steps).sum()).clamp_min(1e-3)


class TopH:
    """The longest prefix of the likeliest symbols whose entropy stays within a share of the whole (Top-H).

    With G the probability of the prefix, its renormalised entropy is H_G = -(sum p ln p) / G + ln G; kept
    is the largest prefix with H_G <= alpha H(p). The rule `official` compares -sum p ln p with alpha times
    that of the likeliest `most`, which keeps more. The likeliest symbol is always kept.
    """

    def __init__(self, config: TopHConfig) -> None:
        self.config = config

    def initial_state(self, batch_size: int) -> None:
        return None

    def step(self, logits: Tensor, state: None, chance: Tensor) -> tuple[Tensor, None]:
        probs, symbols = ranked(logits, self.config.temperature)
        top, symbols = probs[:, : self.config.most], symbols[:, : self.config.most]
        parts = -torch.special.xlogy(top, top).cumsum(-1)
        if self.config.rule == "paper":
            mass = top.cumsum(-1)
            entropy, whole = (
                parts / mass + mass.log(),
                -torch.special.xlogy(probs, probs).sum(-1, keepdim=True),
            )
        else:
            entropy, whole = parts, parts[:, -1:]
        kept = (entropy <= self.config.alpha * whole).long().cumprod(-1).bool()
        kept[:, 0] = True
        return pick(top * kept, symbols, chance), None
