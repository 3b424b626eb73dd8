-- The script that script.c runs: trains a small network on exclusive or, and returns a
-- function that scores positions.
local nyx = require "nyx"
local nn = nyx.nn

nyx.manual_seed(1)
local model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 1), nn.Sigmoid())
local optimizer = nyx.optim.Adam(model:parameters(), { lr = 0.05 })
local inputs = nyx.tensor { { 0, 0 }, { 1, 0 }, { 0, 1 }, { 1, 1 } }
local targets = nyx.tensor { { 0 }, { 1 }, { 1 }, { 0 } }

for _ = 1, 200 do
  local loss = (model(inputs) - targets):square():mean()
  optimizer:zero_grad()
  loss:backward()
  optimizer:step()
end

return function(positions)
  return nyx.no_grad(function() return model(positions) end)
end
