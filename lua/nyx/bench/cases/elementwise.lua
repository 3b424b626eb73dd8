-- Elementwise ops: cached (1M floats) and from memory (16M, 64 MB a tensor), with a fresh
-- result and into one that exists.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values
local sixteen = 2 ^ 24
local sizes = { { "1m", 2 ^ 20 }, { "16m", sixteen } }

for _, op in ipairs { "add", "mul" } do
  for _, row in ipairs(sizes) do
    local size, n = row[1], row[2]
    local limit = { "triad", 12 * n }
    if op == "add" or size == "1m" then
      case(op .. "_" .. size, { limit = limit, tol = 1e-6 }, function()
        local x, y = values(1, { n }), values(2, { n })
        return function() return x[op](x, y) end
      end)
      case(op .. "_" .. size .. "_out", { limit = limit, tol = 1e-6 }, function()
        local x, y = values(1, { n }), values(2, { n })
        local into = { out = nyx.empty(n) }
        return function() return x[op](x, y, into) end
      end)
    end
  end
end

for _, op in ipairs { "relu", "exp", "tanh", "sigmoid", "gelu", "silu" } do
  for _, row in ipairs(sizes) do
    local size, n = row[1], row[2]
    local options = { limit = { "copy", 8 * n }, tol = 1e-6 }
    case(op .. "_" .. size, options, function()
      local x = values(1, { n }) * 2
      return function() return x[op](x) end
    end)
    case(op .. "_" .. size .. "_out", options, function()
      local x, into = values(1, { n }) * 2, { out = nyx.empty(n) }
      return function() return x[op](x, into) end
    end)
  end
end

-- Special functions, of numbers between 0 and 1.
for _, op in ipairs { "lgamma", "digamma", "erfinv", "i0", "i1e" } do
  case(op .. "_1m", { limit = { "copy", 8 * 2 ^ 20 }, tol = 1e-5 }, function()
    local x = values(1, { 2 ^ 20 }):sigmoid()
    return function() return x[op](x) end
  end)
end

-- Bytes, and floats that become them: 1M elements.
local function narrow(seed, dtype)
  return bench.integers(seed, -60, 60, { 2 ^ 20 }):to(dtype)
end

for _, op in ipairs { "add", "maximum", "lt" } do
  case(op .. "_int8_1m", { limit = { "triad", 3 * 2 ^ 20 }, tol = 0 }, function()
    local x, y = narrow(1, "int8"), narrow(2, "int8")
    return function() return x[op](x, y) end
  end)
end

case("lt_1m", { limit = { "triad", 9 * 2 ^ 20 }, tol = 0 }, function()
  local x, y = values(1, { 2 ^ 20 }), values(2, { 2 ^ 20 })
  return function() return x:lt(y) end
end)

case("logical_and_1m", { limit = { "triad", 3 * 2 ^ 20 }, tol = 0 }, function()
  local x, y = values(1, { 2 ^ 20 }):gt(0), values(2, { 2 ^ 20 }):gt(0)
  return function() return x:logical_and(y) end
end)

case("masked_fill_int8_1m", { limit = { "triad", 3 * 2 ^ 20 }, tol = 0 }, function()
  local x, mask = narrow(1, "int8"), values(2, { 2 ^ 20 }):gt(0)
  return function() return x:masked_fill(mask, 7) end
end)

case("cast_int8_1m", { limit = { "copy", 5 * 2 ^ 20 }, tol = 0 }, function()
  local x = values(1, { 2 ^ 20 }) * 60
  return function() return x:to "int8" end
end)

case("add_transposed_4096", { limit = { "copy", 12 * sixteen }, tol = 1e-6 }, function()
  local x = values(1, { 4096, 4096 })
  return function() return x + x:t() end
end)

case("contiguous_transposed_4096", { limit = { "copy", 8 * sixteen }, tol = 1e-6 }, function()
  local x = values(1, { 4096, 4096 })
  return function() return x:t():contiguous() end
end)
