-- nyx.optim: optimisers and learning-rate schedules.
--   local optimizer = nyx.optim.Adam(model:parameters(), {lr = 1e-3})
--   optimizer:zero_grad(); loss:backward(); optimizer:step()
local M = { Optimizer = require "nyx.optim.optimizer" }
for _, file in ipairs { "sgd", "adam", "schedule" } do
  for name, value in pairs(require("nyx.optim." .. file)) do M[name] = value end
end
return M
