-- Causal attention, 12 heads of 64, forward and with backward; all pairs with dropout; decoding:
-- one query of 32 heads of 128 against a cache of 8 heads; rotary embedding.
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

-- Weights are dropped at random: of each key's values only what all keys of a head get is the same
-- on both sides, nearly.
bench.case("attention_dropout_1024_backward", { limit = { "fma32", 7 * 2 * 12 * 1024 ^ 2 * 64 },
  tol = 0.1 }, function()
  local all, g = {}, bench.values(4, { 1, 12, 1024, 64 })
  for i = 1, 3 do all[i] = bench.values(i, { 1, 12, 1024, 64 }):requires_grad_(true) end
  return function()
    for _, x in ipairs(all) do x.grad = nil end
    nyx.scaled_dot_product_attention(all[1], all[2], all[3], { dropout_p = 0.1 }):backward(g)
    return all[3].grad:sum(-2)
  end
end)

for _, kind in ipairs { { "float32", 4 }, { "bfloat16", 2 } } do
  local dtype, bytes = kind[1], kind[2]
  bench.case("decode_gqa_4096" .. (bytes == 2 and "_bf16" or ""), { limit = { "read",
    2 * 8 * 4096 * 128 * bytes }, tol = bytes == 2 and 1e-2 or nil }, function()
    local q = bench.values(1, { 1, 32, 1, 128 }):to(dtype)
    local k = bench.values(2, { 1, 8, 4096, 128 }):to(dtype)
    local v = bench.values(3, { 1, 8, 4096, 128 }):to(dtype)
    return function() return nyx.scaled_dot_product_attention(q, k, v) end
  end)
end

bench.case("rotary", { limit = { "copy", 2 * 32 * 1024 * 128 * 4 } }, function()
  local x, rotary = bench.values(1, { 1, 32, 1024, 128 }), nyx.nn.RotaryEmbedding(128)
  return function() return rotary(x) end
end)
