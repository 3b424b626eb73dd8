"""Optimisers against torch.optim: twenty steps from the same weights along the same
gradients, in two groups of parameters; and a step from a state that was saved. Read next:
lua/nyx/optim."""
import torch

from cases import Random
from layers import options
from ops import BOUNDS, Mismatch, error_of
from worker import NAMES, NyxError

STEPS = 20


def sgd(r):
    momentum = r.choice([0.0, 0.0, 0.9, 0.5])
    nesterov = momentum > 0 and r.chance(0.4)
    return dict(lr=r.uniform(0.01, 0.3), momentum=momentum, nesterov=nesterov,
                dampening=r.uniform(0, 0.5) if momentum and not nesterov and r.chance(0.4) else 0.0,
                weight_decay=r.choice([0.0, 0.1]), maximize=r.chance(0.2))


def adam(r):
    return dict(lr=r.uniform(0.001, 0.1), betas=(r.uniform(0.5, 0.95), r.uniform(0.9, 0.9999)),
                eps=r.choice([1e-8, 1e-3]), weight_decay=r.choice([0.0, 0.1]), amsgrad=r.chance(0.3),
                maximize=r.chance(0.2))


def rmsprop(r):
    return dict(lr=r.uniform(0.001, 0.1), alpha=r.uniform(0.8, 0.99), eps=r.choice([1e-8, 1e-3]),
                weight_decay=r.choice([0.0, 0.1]), momentum=r.choice([0.0, 0.9]), centered=r.chance(0.4),
                maximize=r.chance(0.2))


OPTIMISERS = {"SGD": sgd, "Adam": adam, "AdamW": adam, "RMSprop": rmsprop}

LUA = """
local a, b = T[1]:detach():clone(), T[2]:detach():clone()
a.requires_grad, b.requires_grad = true, true
local function make() return optim.NAME({ { params = { a } }, { params = { b }, lr = LR } }, OPTIONS) end
local o = make()
local out = {}
for i = 1, STEPS do
  o:zero_grad()
  if i == HALF then
    local state = o:state_dict()
    o = make()
    o:load_state_dict(state)
  end
  ((a * T[3][i]):sum() + (b * b * T[4][i]):sum()):backward()
  o:step()
  out[#out + 1], out[#out + 2] = a:detach():clone(), b:detach():clone()
end
return out, #out
"""


def compare(tap, worker, seed, count):
    for name, make in OPTIMISERS.items():
        failures, worst = [], {torch.float64: 0.0, torch.float32: 0.0}
        for i in range(count):
            r = Random(seed, name, i)
            dtype = r.choice([torch.float64, torch.float64, torch.float32])
            attrs, lr = make(r), r.uniform(0.001, 0.1)
            start = [r.tensor(s, dtype) for s in ([3, 4], [r.randint(1, 40)])]
            pulls = [r.tensor([STEPS, *x.shape], dtype, plain=True) for x in start]
            # float32 is held against float64 from the same numbers
            a, b = (x.double().clone().requires_grad_() for x in start)
            peer = getattr(torch.optim, name)([{"params": [a]}, {"params": [b], "lr": lr}], **attrs)
            if r.chance(0.5):
                attrs["max_grad_norm"] = r.choice([0.1, 1.0, 10.0])
            clip = attrs.get("max_grad_norm")
            lua = LUA.replace("NAME", name).replace("LR", repr(lr)).replace("STEPS", str(STEPS))
            lua = lua.replace("HALF", str(STEPS // 2)).replace("OPTIONS", options(**attrs))
            try:
                got = worker.run(lua, start + pulls)
                for k in range(STEPS):
                    peer.zero_grad()
                    ((a * pulls[0][k]).sum() + (b * b * pulls[1][k]).sum()).backward()
                    if clip:
                        torch.nn.utils.clip_grad_norm_([a, b], clip)
                    peer.step()
                    for x, y in ((got[2 * k], a), (got[2 * k + 1], b)):
                        if x.dtype != dtype:
                            raise Mismatch(f"the parameter became {NAMES[x.dtype]}")
                        error = error_of(x, y.detach(), dtype, f"step {k + 1}")
                        worst[dtype] = max(worst[dtype], error)
                        bound = BOUNDS[dtype][0] if dtype == torch.float64 else 1e-4
                        if not error <= bound:
                            raise Mismatch(f"step {k + 1}: error {error:.2e} above {bound:.0e}")
            except (Mismatch, NyxError) as e:
                failures.append(f"{name} {i} in {NAMES[dtype]}: {e}\n  {options(**attrs)}")
        tap.result(f"optim, {name}: {count} runs of {STEPS} steps, float64 {worst[torch.float64]:.1e}, "
                   f"float32 {worst[torch.float32]:.1e}", failures)
