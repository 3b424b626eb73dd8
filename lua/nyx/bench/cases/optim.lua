-- Steps of optimisers over 10M parameters.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local function adamw(options)
  local params = {}
  for i = 1, 10 do
    local p = bench.values(i, { 1000, 1000 }):requires_grad_(true)
    p.grad = bench.values(10 + i, { 1000, 1000 })
    params[i] = p
  end
  local optimizer = nyx.optim.AdamW(params, options)
  return function()
    optimizer:step()
    return params[1], params[10]
  end, function(n) for _ = 1, n do optimizer:step() end end
end

-- Reads the parameter, its gradient and two moments, writes all but the gradient.
bench.case("adamw_10m", { limit = { "triad", 7 * 4e7 }, checks = 3 }, function()
  return adamw { lr = 1e-3 }
end)

-- Reads the gradients once more. Theirs are clipped first, anew each time.
bench.case("adamw_clip_10m", { limit = { "triad", 8 * 4e7 }, checks = 3 }, function()
  return adamw { lr = 1e-3, max_grad_norm = 1 }
end)
