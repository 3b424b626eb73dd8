-- Softmax, norms and cross entropy over rows, group norm of images, forward and backward together.
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values

-- step() of f(x), differentiated for x and what else is given.
local function both_ways(f, x, ...)
  local g, parameters = values(2, x.shape), { ... }
  if x:is_contiguous("channels_last") then g = g:contiguous("channels_last") end
  x:requires_grad_(true)
  for _, p in ipairs(parameters) do p:requires_grad_(true) end
  return function()
    x.grad = nil
    for _, p in ipairs(parameters) do p.grad = nil end
    local y = f(x)
    y:backward(g)
    return y, x.grad, parameters[1] and parameters[1].grad, parameters[2] and parameters[2].grad
  end
end

for _, shape in ipairs { { 4096, 1024 }, { 512, 32768 } } do
  local rows, width = shape[1], shape[2]
  local size = ("%dx%d"):format(rows, width)
  -- Forward reads and writes; backward reads the gradient and one more, and writes.
  local options = { limit = { "triad", 5 * 4 * rows * width } }

  case("softmax_forward_" .. size, { limit = { "copy", 8 * rows * width } }, function()
    local x = values(1, shape)
    return function() return x:softmax(2) end
  end)

  case("softmax_" .. size, options, function()
    return both_ways(function(x) return x:softmax(2) end, values(1, shape))
  end)

  case("layer_norm_" .. size, options, function()
    local weight, bias = values(3, { width }), values(4, { width })
    return both_ways(function(x) return x:layer_norm(weight, bias) end, values(1, shape), weight,
      bias)
  end)

  case("rms_norm_" .. size, options, function()
    local weight = values(3, { width })
    return both_ways(function(x) return x:rms_norm(weight) end, values(1, shape), weight)
  end)

  case("cross_entropy_" .. size, { limit = { "triad", 3 * 4 * rows * width } }, function()
    local x = values(1, shape):requires_grad_(true)
    local labels = bench.integers(2, 1, width + 1, { rows })
    return function()
      x.grad = nil
      local loss = x:cross_entropy(labels)
      loss:backward()
      return loss, x.grad
    end
  end)
end

for _, kind in ipairs { { "group_norm", "contiguous" }, { "last_group_norm", "channels_last" } } do
  local name, format = kind[1], kind[2]
  for _, shape in ipairs { { 16, 256, 32, 32 }, { 64, 256, 4, 4 } } do
    local size = table.concat(shape, "x")
    local bytes = 5 * 4 * shape[1] * shape[2] * shape[3] * shape[4]
    case(name .. "_" .. size, { limit = { "triad", bytes } }, function()
      local weight, bias = values(3, { shape[2] }), values(4, { shape[2] })
      return both_ways(function(x) return x:group_norm(weight, bias, 32) end,
        values(1, shape):contiguous(format), weight, bias)
    end)
  end
end
