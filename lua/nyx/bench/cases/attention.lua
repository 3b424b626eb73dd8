-- Causal attention, 12 heads of 64. There is no op for it yet: products, a mask and softmax,
-- which store the matrix of all pairs.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local note = "no op: composed of products, mask and softmax, which store all pairs"

local function attention(q, k, v, mask)
  local scores = q:matmul(k:transpose(-2, -1)) * (q.shape[#q.shape] ^ -0.5)
  return scores:masked_fill(mask, -math.huge):softmax(-1):matmul(v)
end

for _, length in ipairs { 1024, 4096 } do
  local flops = 2 * 12 * length * length * 64 -- two products, half of each
  local function inputs()
    local q, k, v
    q = bench.values(1, { 1, 12, length, 64 })
    k = bench.values(2, { 1, 12, length, 64 })
    v = bench.values(3, { 1, 12, length, 64 })
    return q, k, v, nyx.ones(length, length, { dtype = "bool" }):triu(1)
  end

  bench.case("attention_" .. length, { limit = { "fma32", flops }, note = note }, function()
    local q, k, v, mask = inputs()
    return function() return attention(q, k, v, mask) end
  end)

  bench.case("attention_" .. length .. "_backward", { limit = { "fma32", 3.5 * flops },
    note = note, tol = 5e-5 }, function()
    local q, k, v, mask = inputs()
    local g, all = bench.values(4, { 1, 12, length, 64 }), { q, k, v }
    for _, x in ipairs(all) do x:requires_grad_(true) end
    return function()
      for _, x in ipairs(all) do x.grad = nil end
      local y = attention(q, k, v, mask)
      y:backward(g)
      return y, q.grad, k.grad, v.grad
    end
  end)
end
