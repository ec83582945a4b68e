"""Weights held as their nonzeros, and what a pass through a module runs."""

import torch

from sparsecircuits.kernels import Held, Pattern


def held(rows, columns, density, dtype=torch.float32):
    """A random weight; with a density below 1, some of its rows and columns are empty."""
    weight = torch.randn(rows, columns, dtype=dtype) * (torch.rand(rows, columns) < density)
    if density < 1:
        weight[torch.rand(rows) < 0.1] = 0
        weight[:, torch.rand(columns) < 0.1] = 0
    pattern = Pattern.of(weight)
    return Held(pattern, weight.reshape(-1)[pattern.places].clone().requires_grad_())


def hold(*layers):
    """Make a fifth of the layers' weights nonzero, large ones, and let them compute with these."""
    for layer in layers:
        with torch.no_grad():
            layer.weight.mul_(30 * (torch.rand_like(layer.weight) < 0.2))
        pattern = Pattern.of(layer.weight)
        layer.held = Held(pattern, layer.weight.detach().view(-1)[pattern.places].requires_grad_())


def operators(module, x):
    """Names of the operators that a pass runs."""
    with torch.profiler.profile() as profile:
        module(x)
    return {event.key for event in profile.key_averages()}


def watched_in_every_way(module, parts, x, fused):
    """Whatever hangs on one of `parts`, the module does without the operator `fused`, and the watcher sees its call."""
    expected = module(x)
    assert fused in operators(module, x)
    for part in parts:
        for watch in (
            part.register_forward_hook,
            part.register_forward_pre_hook,
            part.register_full_backward_hook,
            torch.nn.modules.module.register_module_forward_hook,
        ):
            seen = []
            handle = watch(lambda *given, seen=seen: seen.append(given[-1]))
            assert fused not in operators(module, x)
            output = module(x.clone().requires_grad_())
            torch.testing.assert_close(output, expected, rtol=1e-4, atol=1e-5)
            output.sum().backward()
            assert seen
            handle.remove()
    assert fused in operators(module, x)
