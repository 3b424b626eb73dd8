-- Factorizations and solutions: one large matrix, and many small ones.
local nyx = require "nyx"
local bench = require "nyx.bench.case"

local case, values = bench.case, bench.values

-- Far from singular, and what its symmetric product is.
local function regular(shape)
  local n = shape[#shape]
  return values(1, shape) * n ^ -0.5 + nyx.eye(n) * 2
end

local function definite(shape)
  local x = regular(shape)
  return x:matmul(x:transpose(-2, -1))
end

local function first(f)
  return function() return (f()) end
end

for _, shape in ipairs { { 1024, 1024 }, { 64, 64, 64 }, { 1000, 16, 16 } } do
  local size = table.concat(shape, "x")
  local options = { tol = 1e-4 }

  case("cholesky_" .. size, options, function()
    local x = definite(shape)
    return function() return x:cholesky() end
  end)

  case("lu_" .. size, options, function()
    local x = regular(shape)
    return first(function() return x:lu_factor() end)
  end)

  case("solve_" .. size, options, function()
    local x, y = regular(shape), values(2, shape)
    return function() return nyx.linalg.solve(x, y) end
  end)

  case("qr_" .. size, options, function()
    local x = regular(shape)
    return function() return x:qr() end
  end)
end
