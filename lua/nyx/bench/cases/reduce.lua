-- Reductions of 4096x4096 floats over dimension 1 (rows are added to each other) and over
-- dimension 2 (each row by itself).
local bench = require "nyx.bench.case"

for _, op in ipairs { "sum", "mean", "amax", "argmax", "var" } do
  for dim = 1, 2 do
    local options = { limit = { "read", 4 * 4096 ^ 2 } }
    bench.case(("%s_4096_dim%d"):format(op, dim), options, function()
      local x = bench.values(1, { 4096, 4096 })
      if op ~= "argmax" then return function() return x[op](x, dim) end end
      -- Any of equal greatest elements will do, so what is compared is the elements.
      local function run(n) for _ = 1, n do x:argmax(dim) end end
      return function() return x:gather(x:argmax(dim, true), dim) end, run
    end)
  end
end
