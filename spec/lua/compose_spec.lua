-- Everyday functions made of a few ops: lua/nyx/compose.lua and nn.utils.
local nyx = require "nyx"

local function t(values, dtype) return nyx.tensor(values, { dtype = dtype or "float64" }) end

local function fails(fn, ...)
  local ok, message = pcall(fn)
  assert.is_false(ok)
  for _, text in ipairs { ... } do
    assert.is_truthy(message:find(text, 1, true), ("%q lacks %q"):format(message, text))
  end
  assert.is_truthy(message:find("compose_spec.lua:", 1, true), message)
end

describe("diagonals", function()
  it("trace", function() assert.are.equal(5, t({ { 1, 2 }, { 3, 4 } }):trace():item()) end)
  it("makes and reads diagonals", function()
    assert.are.same({ { 1, 0 }, { 0, 2 } }, t({ 1, 2 }):diag():totable())
    assert.are.same({ { 0, 1, 0 }, { 0, 0, 2 }, { 0, 0, 0 } }, t({ 1, 2 }):diag(1):totable())
    assert.are.same({ { 0, 0, 0 }, { 1, 0, 0 }, { 0, 2, 0 } }, t({ 1, 2 }):diag(-1):totable())
    assert.are.same({ 2 }, t({ { 1, 2 }, { 3, 4 } }):diag(1):totable())
    local inf = t({ math.huge, 1 }):diag()
    assert.are.equal(0, inf[1][2]:item())
  end)
  it("passes gradients", function()
    local x = t({ 1, 2 }):requires_grad_();
    (x:diag(1) * 3):sum():backward()
    assert.are.same({ 3, 3 }, x.grad:totable())
  end)
end)

describe("nan and closeness", function()
  local nan = 0 / 0
  it("isclose", function()
    local x = t { 1, 2, nan, math.huge, 1 }
    local y = t { 1 + 1e-9, 2.1, nan, math.huge, math.huge }
    assert.are.same({ true, false, false, true, false }, x:isclose(y):totable())
    assert.are.same({ true, false, true, true, false }, x:isclose(y, nil, nil, true):totable())
  end)
  it("nan_to_num", function()
    assert.are.same({ 0, 7, -8, 1 }, t({ nan, math.huge, -math.huge, 1 })
      :nan_to_num(nil, 7, -8):totable())
    local most = t({ math.huge }, "float32"):nan_to_num()
    assert.is_true(most:isfinite():all():item())
  end)
end)

describe("along a dimension", function()
  local x = t { { 3, 1, 2, 4 }, { 9, 9, 0, 1 } }
  it("diff", function()
    assert.are.same({ { -2, 1, 2 }, { 0, -9, 1 } }, x:diff():totable())
    assert.are.same({ { 6, 8, -2, -3 } }, x:diff(1, 1):totable())
    assert.are.same({ { 3, 1 }, { -9, 10 } }, x:diff(2):totable())
    assert.are.same({ 2, 0 }, x:diff(9).shape)
    assert.are.same({ true, false }, nyx.tensor({ true, false, false }):diff():totable())
  end)
  it("movedim", function()
    local y = nyx.zeros(2, 3, 4)
    assert.are.same({ 3, 4, 2 }, y:movedim(1, 3).shape)
    assert.are.same({ 4, 2, 3 }, y:movedim(-1, 1).shape)
    fails(function() y:movedim(4, 1) end, "movedim", "source")
  end)
  it("normalize and cosine_similarity", function()
    assert.are.same({ { 0.6, 0.8 } }, t({ { 3, 4 } }):normalize():totable())
    local c = t({ { 1, 0 }, { 1, 1 } }):cosine_similarity(t { { 0, 2 }, { 3, 3 } })
    assert.is_true(c:allclose(t { 0, 1 }))
  end)
end)

describe("counting and creation", function()
  it("bincount counts labels from 1", function()
    local labels = nyx.tensor({ 1, 3, 3 }, { dtype = "int64" })
    assert.are.same({ 1, 0, 2 }, labels:bincount():totable())
    assert.are.same({ 1, 0, 2, 0 }, labels:bincount(4):totable())
    fails(function() (labels - 1):bincount() end, "bincount", "label 0", "from 1")
    fails(function() nyx.ones(2):bincount() end, "bincount", "float32", "integers")
  end)
  it("meshgrid, logspace, new_zeros, element_size", function()
    local grid = nyx.meshgrid { t { 1, 2 }, t { 3, 4, 5 } }
    assert.are.same({ { 1, 1, 1 }, { 2, 2, 2 } }, grid[1]:totable())
    assert.are.same({ { 3, 4, 5 }, { 3, 4, 5 } }, grid[2]:totable())
    assert.is_true(nyx.logspace(0, 2, 3):allclose(nyx.tensor { 1, 10, 100 }))
    assert.is_true(nyx.logspace(0, 2, 3, { base = 2 }):allclose(nyx.tensor { 1, 2, 4 }))
    local made = t({ 1 }):new_ones { 2 }
    assert.are.equal("float64", made.dtype)
    assert.are.same({ 1, 1 }, made:totable())
    assert.are.equal(8, made:element_size())
  end)
end)

describe("nn.utils", function()
  local utils = nyx.nn.utils
  it("clips gradients", function()
    local a = nyx.zeros(2, { requires_grad = true })
    local b = nyx.zeros(1, { requires_grad = true })
    a.grad, b.grad = nyx.tensor { 3, 0 }, nyx.tensor { 4 }
    assert.are.equal(5, utils.clip_grad_norm_({ a, b }, 10):item())
    assert.are.same({ 3, 0 }, a.grad:totable())
    assert.are.equal(5, utils.clip_grad_norm_({ a, b }, 1):item())
    assert.is_true(a.grad:allclose(nyx.tensor { 0.6, 0 }))
    assert.is_true(b.grad:allclose(nyx.tensor { 0.8 }))
    utils.clip_grad_value_({ a, b }, 0.5)
    assert.are.same({ 0.5, 0 }, a.grad:totable())
    fails(function() utils.clip_grad_norm_({ 1 }, 1) end, "clip_grad_norm_", "parameters[1]")
  end)
  it("turns parameters into a vector and back", function()
    local net = nyx.nn.Linear(2, 1)
    local vector = utils.parameters_to_vector(net:parameters())
    assert.are.equal(3, vector:numel())
    utils.vector_to_parameters(vector:detach() * 0 + 2, net:parameters())
    assert.are.same({ { 2, 2 } }, net.weight:totable())
    assert.is_true(net.weight.requires_grad)
  end)
end)
