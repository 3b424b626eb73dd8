-- Causal attention, 12 heads of 64, forward and with backward.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local function attention(q, k, v)
  return nyx.scaled_dot_product_attention(q, k, v, { is_causal = true })
end

for _, length in ipairs { 1024, 4096 } do
  local flops = 2 * 12 * length * length * 64 -- two products, half of each
  local function inputs()
    local q, k, v
    q = bench.values(1, { 1, 12, length, 64 })
    k = bench.values(2, { 1, 12, length, 64 })
    v = bench.values(3, { 1, 12, length, 64 })
    return q, k, v
  end

  bench.case("attention_" .. length, { limit = { "fma32", flops } }, function()
    local q, k, v = inputs()
    return function() return attention(q, k, v) end
  end)

  bench.case("attention_" .. length .. "_backward", { limit = { "fma32", 3.5 * flops },
    tol = 5e-5 }, function()
    local q, k, v = inputs()
    local g, all = bench.values(4, { 1, 12, length, 64 }), { q, k, v }
    for _, x in ipairs(all) do x:requires_grad_(true) end
    return function()
      for _, x in ipairs(all) do x.grad = nil end
      local y = attention(q, k, v)
      y:backward(g)
      return y, q.grad, k.grad, v.grad
    end
  end)
end
