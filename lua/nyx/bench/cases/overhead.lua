-- What a call costs: 16 elements from Lua, chains of small ops, functions of gradients.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values

for _, recording in ipairs { false, true } do
  case(recording and "add_16_recording" or "add_16", { tol = 1e-6 }, function()
    local x, y = values(1, { 16 }):requires_grad_(recording), values(2, { 16 })
    return function() return x + y end, function(n) for _ = 1, n do local _ = x + y end end
  end)
end

case("add_16_out", { tol = 1e-6 }, function()
  local x, y, into = values(1, { 16 }), values(2, { 16 }), { out = nyx.empty(16) }
  return function() return x:add(y, into) end, function(n) for _ = 1, n do x:add(y, into) end end
end)

-- Just enough for two threads, on both sides: what it costs to wake them and to wait for them.
-- nyx --doctor has the cost of empty regions.
case("threads_wake", { tol = 1e-6 }, function()
  local x, y, into = values(1, { 65536 }), values(2, { 65536 }), { out = nyx.empty(65536) }
  return function() return x:add(y, into) end, function(n) for _ = 1, n do x:add(y, into) end end
end)

-- Ten elementwise ops and their backward pass.
for _, n in ipairs { 1000, 1000000 } do
  case(n == 1000 and "chain_1k_backward" or "chain_1m_backward", { tol = 2e-5 }, function()
    local x = values(1, { n }):requires_grad_(true)
    return function()
      x.grad = nil
      local y = (((x * 2):tanh() + 1):square():sigmoid() * x):exp():log1p() - 0.5
      y:gelu():sum():backward()
      return x.grad
    end
  end)
end

-- A perceptron of two layers as a function of its parameters: of one entry, or of a batch.
local function two_layers()
  local p = { values(1, { 64, 32 }) * 0.1, nyx.zeros(64), values(2, { 10, 64 }) * 0.1,
    nyx.zeros(10) }
  local function loss(q, x, y)
    local out = x:linear(q[1], q[2]):tanh():linear(q[3], q[4])
    return (out - y):square():mean()
  end
  return p, loss, values(3, { 64, 32 }), values(4, { 64, 10 })
end

case("per_sample_gradients", {}, function()
  local p, loss, x, y = two_layers()
  local gradients = nyx.func.vmap(nyx.func.grad(loss), { in_dims = { false, 1, 1 } })
  return function()
    local g = gradients(p, x, y)
    return g[1], g[2], g[3], g[4]
  end
end)

case("hvp", { tol = 2e-5 }, function()
  local p, loss, x, y = two_layers()
  local v = {}
  for i, w in ipairs(p) do v[i] = values(10 + i, w.shape) end
  local function of(q) return loss(q, x, y) end
  return function()
    local _, product = nyx.func.hvp(of, { p }, { v })
    return product[1]
  end
end)
