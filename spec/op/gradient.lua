-- Finite differences in float64, first and second order. Read next: op_spec.lua.
local nyx = require "nyx"

local M = {}

-- The inner product of all float results with fixed weights: one number to differentiate.
local function scalar(results, weights)
  local sum
  for i, y in ipairs(results) do
    if y.dtype == "float64" then
      weights[i] = weights[i] or nyx.tensor((function()
        local w = {}
        for k = 1, y:numel() do w[k] = 0.3 + (k * 0.37 % 1) end
        return w
      end)(), { dtype = "float64" }):reshape(y.shape)
      local part = (y * weights[i]):sum()
      sum = sum and sum + part or part
    end
  end
  return sum
end

-- d f / d x by central differences, element by element. f(x) gives a number.
local function numeric(f, x, step)
  local out = {}
  local flat = x:reshape(-1)
  for k = 1, flat:numel() do
    local old = flat[k]:item()
    flat[k] = old + step
    local above = f()
    flat[k] = old - step
    local below = f()
    flat[k] = old
    out[k] = (above - below) / (2 * step)
  end
  return out
end

local function worst(analytic, differences)
  local err, at = 0, 1
  for k, d in ipairs(differences) do
    local a = analytic and analytic[k] or 0
    local e = math.abs(a - d) / math.max(1, math.abs(d))
    if not (e <= err) then err, at = e, k end -- luacheck: ignore 581
  end
  return err, at
end

local function flat_table(t) return t and t:reshape(-1):totable() end

-- Checks the gradients of call(inputs...) -> tensors with respect to the float64 tensors
-- `inputs`. Returns nil when they agree, else a description. `order` 2 checks the gradients
-- of the gradients.
function M.check(call, inputs, order, tolerance)
  local weights, gweights = {}, {}
  local function leaves()
    local out = {}
    for i, x in ipairs(inputs) do
      out[i] = x:detach():clone()
      out[i].requires_grad = true
    end
    return out
  end
  local function gradients(xs, create)
    local y = scalar({ call(xs) }, weights)
    if not y or not y.requires_grad then return {} end
    return nyx.grad(y, xs, { create_graph = create })
  end
  local function second(xs, create)
    local gs = gradients(xs, true)
    local list = {}
    for i = 1, #xs do if gs[i] then list[#list + 1] = gs[i] end end
    local sum = scalar(list, gweights)
    if create then return sum end
    return sum and sum:item() or 0
  end
  local xs = leaves()
  for i, x in ipairs(xs) do
    local analytic, f
    if order == 1 then
      analytic = flat_table(gradients(xs, false)[i])
      f = function()
        return nyx.no_grad(function()
          local y = scalar({ call(xs) }, weights)
          return y and y:item() or 0
        end)
      end
    else
      local sum = second(xs, true)
      analytic = sum and sum.requires_grad and flat_table(nyx.grad(sum, xs)[i]) or nil
      f = function() return second(xs, false) end
    end
    local plain = x:detach()
    local differences = numeric(f, plain, order == 1 and 1e-6 or 1e-5)
    local err, at = worst(analytic, differences)
    if not (err <= tolerance) then -- luacheck: ignore 581
      return ("order %d, input %d, element %d: gradient %s, finite difference %.10g"):format(
        order, i, at, tostring(analytic and analytic[at]), differences[at])
    end
  end
end

return M
