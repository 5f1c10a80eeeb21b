"""DLSA's flow and its training in PyTorch, the peer in `dlsa_vs_pytorch.py`."""

import math

import numpy as np
import torch
from torch.nn import functional


def as_tensor(array):
    """A copy for PyTorch."""
    return torch.tensor(np.array(array))


class TorchBlock(torch.nn.Module):
    """A MADE block and its batch norm, with the weights of one of lt_jax's."""

    def __init__(self, params, stats, reverse):
        """Copies the weights; makes the masks."""
        super().__init__()
        dim, width = params["hidden"].shape
        order = torch.arange(dim).flip(0) if reverse else torch.arange(dim)
        degree = torch.arange(width) % (dim - 1)
        self.register_buffer("first", (degree[:, None] >= order).float())
        self.register_buffer("last", (order[:, None] > degree).float().repeat(2, 1))
        for name, value in params.items():
            setattr(self, name, torch.nn.Parameter(as_tensor(value.T).contiguous()))
        self.register_buffer("mean", as_tensor(stats["mean"]))
        self.register_buffer("var", as_tensor(stats["var"]))

    def forward(self, x, bound):
        """Latents and log-determinants by the batch's statistics, which join the running ones."""
        hidden = functional.linear(x, self.hidden * self.first, self.hidden_bias).relu()
        output = functional.linear(hidden, self.output * self.last, self.output_bias)
        shift, log_scale = output.chunk(2, dim=1)
        log_scale = bound * torch.tanh(log_scale / bound)
        x = (x - shift) * torch.exp(-log_scale)
        mean, var = x.mean(0), x.var(0, correction=0)
        with torch.no_grad():
            self.mean.lerp_(mean, 0.1)
            self.var.lerp_(var, 0.1)
        inverse_scale = self.log_gamma - 0.5 * torch.log(var + 1e-5)
        x = (x - mean) * torch.exp(inverse_scale) + self.beta
        return x, inverse_scale.sum() - log_scale.sum(1)


class TorchTraining:
    """The same in PyTorch; `form` is "released" or "matmul"."""

    def __init__(self, flow, centres, options, data, form):
        """Copies lt_jax's weights and centres; sorts the samples by class, for pairs."""
        each = enumerate(zip(flow.params, flow.stats, strict=True))
        self.blocks = torch.nn.ModuleList(TorchBlock(p, s, i % 2 == 1) for i, (p, s) in each)
        self.options, self.form, self.centres = options, form, as_tensor(centres)
        self.running, self.done = torch.zeros(len(centres)), 0
        self.features, self.labels, self.weights = map(torch.from_numpy, data)
        self.order, self.counts = self.labels.argsort(stable=True), self.labels.bincount()
        self.starts = self.counts.cumsum(0) - self.counts
        rate, momentum = options.learning_rate, options.momentum
        self.optimizer = torch.optim.SGD(self.blocks.parameters(), rate, momentum=momentum)

    def log_densities(self, latents, log_det):
        """``[B, K]``."""
        if self.form == "released":
            squares = (latents[:, None, :] - self.centres[None]).square().sum(-1)
        else:
            cross = latents @ self.centres.T
            squares = latents.square().sum(1, True) - 2 * cross + self.centres.square().sum(1)
        return log_det[:, None] - 0.5 * latents.shape[1] * math.log(2 * math.pi) - 0.5 * squares

    def losses(self, both, weights):
        """The three terms; positives are the first half of `both`."""
        latents, log_det = both, torch.zeros(len(both))
        for block in self.blocks:
            latents, more = block(latents, self.options.bound)
            log_det = log_det + more
        halves = zip(latents.chunk(2), log_det.chunk(2), strict=True)
        own, other = (self.log_densities(*half) for half in halves)
        likelihood = (own.logsumexp(1) - math.log(own.shape[1])) / both.shape[1]
        posterior = own.softmax(1)
        new = 0.7 * self.running + 0.3 * (posterior.mean(0) + 1e-7)
        self.running, self.done = new.detach(), self.done + 1
        q = new / (1 - 0.7**self.done)
        balance = math.log(own.shape[1]) + (q * q.log()).sum()
        negative = other.log_softmax(1).clamp(min=-self.options.purity_floor)
        purity = (posterior.detach() * negative).sum(1).mean()
        return torch.stack([-(weights * likelihood).mean(), balance, purity])

    def draw_pairs(self):
        """Two different classes, equally likely, and one sample of each."""
        size, classes = self.options.batch_size, len(self.counts)
        one = torch.randint(classes, (size,))
        chosen = torch.cat([one, (one + torch.randint(1, classes, (size,))) % classes])
        return self.order[self.starts[chosen] + (torch.rand(2 * size) * self.counts[chosen]).long()]

    def step(self, pairs=None):
        """One training step; the terms."""
        pairs = self.draw_pairs() if pairs is None else pairs
        weights = self.weights[self.labels[pairs[: self.options.batch_size]]]
        coefficients = [self.options.likelihood, self.options.balance, self.options.purity]
        self.optimizer.zero_grad()
        terms = self.losses(self.features[pairs], weights)
        (torch.tensor(coefficients) * terms).sum().backward()
        self.optimizer.step()
        return terms.detach().numpy()
