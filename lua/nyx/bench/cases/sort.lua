-- Sorting, searching and moving data.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values, integers = bench.case, bench.values, bench.integers
local million = 2 ^ 20

-- What is compared is values, as positions of equal elements may differ.
local function first(f)
  return function() return (f()) end
end

case("sort_1m", {}, function()
  local x = values(1, { million })
  return first(function() return x:sort() end)
end)

case("sort_4096x1024", {}, function()
  local x = values(1, { 4096, 1024 })
  return first(function() return x:sort(2) end)
end)

case("topk_1m", { limit = { "read", 4 * million } }, function()
  local x = values(1, { million })
  return first(function() return x:topk(10) end)
end)

case("topk_4096x1024", { limit = { "read", 16 * million } }, function()
  local x = values(1, { 4096, 1024 })
  return first(function() return x:topk(10, 2) end)
end)

case("prefilter_256kx128", {}, function()
  local p, queries = nyx.prefilter(values(1, { million / 4, 128 })), values(2, { 16, 128 })
  return first(function() return p:topk(queries, 10) end)
end)

case("cumsum_1m", { limit = { "copy", 8 * million } }, function()
  local x = values(1, { million })
  return function() return x:cumsum(1) end
end)

case("unique_1m", {}, function()
  local x = integers(1, 0, 100000, { million })
  return first(function() return x:unique() end)
end)

case("take_1m", {}, function()
  local x, index = values(1, { million }), integers(2, 1, million + 1, { million })
  return function() return x:take(index) end
end)

case("nonzero_1m", {}, function()
  local mask = values(1, { million }):gt(0)
  return function() return mask:nonzero() - 1 end -- PyTorch takes away 0
end)

case("histc_1m", { limit = { "read", 4 * million } }, function()
  local x = values(1, { million })
  return function() return x:histc(100, -1, 1) end
end)

case("cdist_1024x3", {}, function()
  local x, y = values(1, { 1024, 3 }), values(2, { 1024, 3 })
  return function() return x:cdist(y) end
end)

case("gather_1m", {}, function()
  local x, index = values(1, { million }), integers(2, 1, million + 1, { million })
  return function() return x:gather(index, 1) end
end)

case("index_select_4096x1024", { limit = { "copy", 32 * million } }, function()
  local x, index = values(1, { 4096, 1024 }), integers(2, 1, 4097, { 4096 })
  return function() return x:index_select(index, 1) end
end)

case("index_add_4096x1024", {}, function()
  local x, source = values(1, { 4096, 1024 }), values(3, { 4096, 1024 })
  local index = integers(2, 1, 4097, { 4096 })
  return function() return x:index_add(index, source, 1) end
end)

case("embedding_gradient", {}, function()
  local weight = values(1, { 50000, 512 }):requires_grad_(true)
  local index, g = integers(2, 1, 50001, { 8192 }), values(3, { 8192, 512 })
  return function()
    weight.grad = nil
    nyx.embedding(weight, index):backward(g)
    return weight.grad
  end
end)
