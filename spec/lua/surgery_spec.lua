-- nn.utils on gradients: values worked out by hand.
local nyx = require "nyx"
local utils = nyx.nn.utils

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

local function parameter(values, grad)
  local p = nyx.tensor(values, { dtype = "float64", requires_grad = true })
  if grad then p.grad = nyx.tensor(grad, { dtype = "float64" }) end
  return p
end

local function close(expected, t)
  local got = t:reshape({ -1 }):totable()
  assert.are.equal(#expected, #got)
  for i = 1, #expected do
    assert.is_true(math.abs(expected[i] - got[i]) < 1e-12 * math.max(1, math.abs(expected[i])),
      ("element %d: expected %.15g, got %.15g"):format(i, expected[i], got[i]))
  end
end

describe("clip_grad_norm_", function()
  it("raises an error for inf and nan where asked to, and leaves the gradients", function()
    for _, bad in ipairs { math.huge, 0 / 0 } do
      local p = parameter({ 1, 1 }, { 3, bad })
      assert.matches("clip_grad_norm_: the norm of the gradients is",
        message_of(utils.clip_grad_norm_, { p }, 1, 2, { error_if_nonfinite = true }))
      assert.are.equal(3, p.grad[1]:item())
      utils.clip_grad_norm_({ p }, 1)
    end
    local p = parameter({ 1, 1 }, { 3, 4 })
    local norm = utils.clip_grad_norm_({ p }, 1, { error_if_nonfinite = true, norm_type = 1 })
    close({ 7 }, norm)
    close({ 3 / (7 + 1e-6), 4 / (7 + 1e-6) }, p.grad)
    assert.matches("unknown option 'x'", message_of(utils.clip_grad_norm_, { p }, 1, { x = 1 }))
  end)
end)

describe("nn.utils", function()
  local nn = nyx.nn

  it("takes modules, and no tables that are no lists", function()
    local m = nn.Linear(2, 1, { bias = false })
    local function fill(a, b) m.weight.grad = nyx.tensor { { a, b } } end
    fill(30, 40)
    assert.are.equal(50, utils.clip_grad_norm_(m, 5):item())
    assert.is_true(math.abs(m.weight.grad[1][1]:item() - 3) < 1e-5)
    fill(30, 40)
    utils.clip_grad_value_(m, 1)
    close({ 1, 1 }, m.weight.grad)
    m.weight.grad = nil
    utils.pcgrad({ (m.weight * 2):sum() }, m)
    close({ 2, 2 }, m.weight.grad)
    assert.are.same({ 2 }, utils.parameters_to_vector(m).shape)
    for _, name in ipairs { "clip_grad_norm_", "clip_grad_value_" } do
      assert.matches(name .. ": 'parameters' has the key 'w', expected a list of tensors, a tensor",
        message_of(utils[name], { w = m.weight }, 1))
    end
    assert.matches("has the key '3'", message_of(utils.normalize_grad_, { [3] = m.weight }))
  end)

  it("measures all tensors together, half types in float32", function()
    close({ 5 }, utils.get_total_norm { parameter { 3, 0 }, parameter { 4 } })
    close({ 7 }, utils.get_total_norm({ parameter { 3, 0 }, parameter { -4 } }, 1))
    close({ 0 }, utils.get_total_norm {})
    local half = nyx.full({ 4 }, 60000, { dtype = "float16" })
    local norm = utils.get_total_norm(half)
    assert.are.equal("float32", norm.dtype)
    assert.is_true(math.abs(norm:item() - half[1]:item() * 2) < 1)
  end)
end)

describe("normalize_grad_", function()
  it("divides all gradients by their common norm", function()
    local a, b, c = parameter({ 0, 0 }, { 2, 0 }), parameter({ 0 }, { 3 }), parameter { 0 }
    local d = parameter({ 0 }, { -6 })
    close({ 7 }, utils.normalize_grad_({ a, b, c, d }))
    close({ 2 / 7, 0 }, a.grad)
    close({ 3 / 7 }, b.grad)
    close({ -6 / 7 }, d.grad)
    assert.is_nil(c.grad)
    close({ 11 / 7 }, utils.normalize_grad_({ a, b, d }, { norm_type = 1 }))
    close({ 3 / 11 }, b.grad)
    close({ 6 / 11 }, utils.normalize_grad_({ a, b, d }, { norm_type = math.huge }))
  end)

  it("does not divide by zero", function()
    local p = parameter({ 1, 2 }, { 0, 0 })
    utils.normalize_grad_(p)
    close({ 0, 0 }, p.grad)
    p.grad = nyx.tensor({ 3, 4 }, { dtype = "float64" })
    utils.normalize_grad_(p, { eps = 5 })
    close({ 0.3, 0.4 }, p.grad)
    close({ 0 }, utils.normalize_grad_ {})
    local half = nyx.zeros({ 2 }, { dtype = "float16", requires_grad = true })
    half.grad = nyx.zeros({ 2 }, { dtype = "float16" })
    utils.normalize_grad_(half)
    close({ 0, 0 }, half.grad)
    half.grad = nyx.tensor({ 3, 4 }, { dtype = "float16" })
    utils.normalize_grad_(half)
    assert.are.equal("float16", half.grad.dtype)
    assert.is_true(math.abs(half.grad[1]:item() - 0.6) < 1e-3)
    assert.matches("'eps' is number %-1", message_of(utils.normalize_grad_, p, { eps = -1 }))
    assert.matches("parameters", message_of(utils.normalize_grad_, 3))
  end)
end)

describe("centralize_grad_", function()
  it("subtracts the mean of each output's weights", function()
    local w = parameter({ { 0, 0, 0 }, { 0, 0, 0 } }, { { 1, 2, 6 }, { -1, 0, 4 } })
    local bias = parameter({ 0, 0 }, { 5, 7 })
    local kernel = nyx.zeros({ 2, 1, 2, 2 }, { dtype = "float64", requires_grad = true })
    kernel.grad = nyx.arange(1, 9, { dtype = "float64" }):reshape(2, 1, 2, 2)
    utils.centralize_grad_ { w, bias, kernel, parameter { 0 } }
    close({ -2, -1, 3, -2, -1, 3 }, w.grad)
    close({ 5, 7 }, bias.grad)
    close({ -1.5, -0.5, 0.5, 1.5, -1.5, -0.5, 0.5, 1.5 }, kernel.grad)
  end)
end)

describe("add_grad_noise_", function()
  it("adds normal numbers of the annealed variance", function()
    local w = nyx.zeros({ 40000 }, { requires_grad = true })
    w.grad = nyx.full({ 40000 }, 3)
    nyx.manual_seed(1)
    local deviation = utils.add_grad_noise_(w, { eta = 0.3, step = 15 })
    assert.is_true(math.abs(deviation - math.sqrt(0.3 / 16 ^ 0.55)) < 1e-12)
    assert.is_true(math.abs(w.grad:mean():item() - 3) < 5 * deviation / 200)
    assert.is_true(math.abs(w.grad:std():item() / deviation - 1) < 0.02)
    local first = w.grad
    w.grad = nyx.full({ 40000 }, 3)
    nyx.manual_seed(1)
    utils.add_grad_noise_(w, { eta = 0.3, step = 15 })
    assert.is_true(first:eq(w.grad):all():item())
    assert.are.equal(0.1, utils.add_grad_noise_(w, { step = 0 }))
    assert.are.equal(0, utils.add_grad_noise_(w, { step = 0, eta = 0 }))
    assert.matches("'step' is nil", message_of(utils.add_grad_noise_, w, {}))
    assert.matches("'eta' is number %-1", message_of(utils.add_grad_noise_, w,
      { step = 1, eta = -1 }))
  end)
end)

describe("pcgrad", function()
  local function task(w, a, b)
    return (w * nyx.tensor({ a, b }, { dtype = "float64" })):sum()
  end

  it("adds what agrees up as it is", function()
    local w = parameter { 1, 1 }
    local conflicts = utils.pcgrad({ task(w, 1, 0), task(w, 2, 3) }, { w })
    close({ 3, 3 }, w.grad)
    assert.are.same({ { false, false }, { false, false } }, conflicts)
  end)

  it("projects two that oppose each other", function()
    -- (1, 0) and (-1, 1): the first becomes (1, 0) + 1/2 (-1, 1) = (1/2, 1/2), the second
    -- (-1, 1) + (1, 0) = (0, 1).
    local w = parameter { 1, 1 }
    local conflicts = utils.pcgrad({ task(w, 1, 0), task(w, -1, 1) }, w)
    close({ 0.5, 1.5 }, w.grad)
    assert.are.same({ { false, true }, { true, false } }, conflicts)
    utils.pcgrad({ task(w, 1, 0), task(w, -1, 1) }, w) -- .grad adds up
    close({ 1, 3 }, w.grad)
  end)

  it("projects one after the other, in order or at random", function()
    -- a = (1, 0), b = (-1, 1), c = (-1, -2); in order:
    -- a: off b: (1/2, 1/2); off c, dot = -3/2, |c|^2 = 5: + 3/10 c = (1/5, -1/10).
    -- b: off a: (0, 1); off c, dot = -2: + 2/5 c = (-2/5, 1/5).
    -- c: off a: (0, -2); off b, dot = -2: + b = (-1, -1).
    local w = parameter { 0, 0 }
    local function losses() return { task(w, 1, 0), task(w, -1, 1), task(w, -1, -2) } end
    local conflicts = utils.pcgrad(losses(), { w }, { shuffle = false })
    close({ -6 / 5, -9 / 10 }, w.grad)
    assert.are.same({ { false, true, true }, { true, false, true }, { true, true, false } },
      conflicts)
    -- Task a first off c: dot = -1: + 1/5 c = (4/5, -2/5); off b, dot = -6/5: + 3/5 b =
    -- (1/5, 1/5). b: off c, dot = -1: + 1/5 c = (-6/5, 3/5); off a: (0, 3/5).
    -- c: off b, dot = -1: + 1/2 b = (-3/2, -3/2); off a: (0, -3/2).
    local a = { { 0.2, -0.1 }, { 0.2, 0.2 } }
    local b = { { -0.4, 0.2 }, { 0, 0.6 } }
    local c = { { -1, -1 }, { 0, -1.5 } }
    local sums, seen = {}, 0
    for i = 1, 2 do
      for j = 1, 2 do
        for k = 1, 2 do
          local x, y = a[i][1] + b[j][1] + c[k][1], a[i][2] + b[j][2] + c[k][2]
          sums[("%.6f %.6f"):format(x, y)] = true
        end
      end
    end
    local found = {}
    for seed = 1, 40 do
      nyx.manual_seed(seed)
      w.grad = nil
      utils.pcgrad(losses(), { w })
      local key = ("%.6f %.6f"):format(w.grad[1]:item(), w.grad[2]:item())
      assert.is_true(sums[key], key)
      if not found[key] then seen = seen + 1 end
      found[key] = true
    end
    assert.is_true(seen >= 5)
  end)

  it("takes several parameters as one vector, and losses that miss some", function()
    local u, v = parameter { 2 }, parameter { 3 }
    local shared = u * 1
    -- (1, 1), (-2, 0): dot -2; the first + 2/4 (-2, 0) = (0, 1), the second + 2/2 (1, 1) = (-1, 1).
    utils.pcgrad({ (shared + v):sum(), (shared * -2):sum() }, { u, v })
    close({ -1 }, u.grad)
    close({ 2 }, v.grad)
  end)

  it("gives every parameter a gradient of its own", function()
    local a, b = parameter { 1, 2 }, parameter { 3, 4 }
    utils.pcgrad({ (a + b):sum() }, { a, b })
    assert.is_false(a.grad:shares(b.grad))
    a.grad:mul_(10)
    close({ 10, 10 }, a.grad)
    close({ 1, 1 }, b.grad)
    utils.clip_grad_norm_({ a, b }, 0.5) -- writes into them
    local c = parameter { { 1, 2 }, { 3, 4 } }
    utils.pcgrad({ c:sum() }, { c })
    assert.is_true(c.grad:is_contiguous())
  end)

  it("checks its arguments", function()
    local w = parameter { 1, 1 }
    assert.matches("'losses' is empty", message_of(utils.pcgrad, {}, { w }))
    assert.matches("losses%[1%]", message_of(utils.pcgrad, { 3 }, { w }))
    assert.matches("unknown option 'order'", message_of(utils.pcgrad, { task(w, 1, 1) }, { w },
      { order = 1 }))
    assert.is_nil(w.grad)
  end)
end)
