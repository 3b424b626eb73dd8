-- Steps of optimisers over 10M parameters.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

-- Reads the parameter, its gradient and two moments, writes all but the gradient.
bench.case("adamw_10m", { limit = { "triad", 7 * 4e7 }, checks = 3 }, function()
  local params = {}
  for i = 1, 10 do
    local p = bench.values(i, { 1000, 1000 }):requires_grad_(true)
    p.grad = bench.values(10 + i, { 1000, 1000 })
    params[i] = p
  end
  local optimizer = nyx.optim.AdamW(params, { lr = 1e-3 })
  return function()
    optimizer:step()
    return params[1], params[10]
  end, function(n) for _ = 1, n do optimizer:step() end end
end)
