-- Jacobians, found in several ways: by moving the inputs (central differences, the complex
-- step), by backward passes, by forward mode, by a batch of backward passes. All look along
-- the same directions of every input and the same weights of every output: single elements,
-- or one random vector each (fast).
--   columns[i][a][j]  the derivative of output j along direction a of input i, as a list
--   rows[j][b][i]     the gradient of output j, weighted by b, by input i, as a list
-- Read next: subject.lua, ../func.lua.
local nyx = require "nyx"
local subject = require "nyx.gradcheck.subject"

local func, lift = nyx.func, nyx.lift
local values = subject.values

local M = {}

-- ---------------------------------------------------------------- directions and weights

-- Random numbers of its own: a check neither depends on nyx.manual_seed nor disturbs it.
local state = 1
local function random()
  state = state * 48271 % 2147483647
  return state / 2147483647
end

--- Makes the random numbers those of the first check.
function M.reset() state = 20240229 end

--- n numbers of either sign and magnitudes in 0.5..1.5.
---@param t nyx.Tensor its shape, dtype and device
---@return nyx.Tensor
function M.random_like(t)
  local list = {}
  for k = 1, t:numel() do
    local r = random()
    list[k] = r < 0.5 and r - 1.5 or r + 0.5
  end
  return nyx.tensor(list, { dtype = t.dtype }):reshape(t.shape):to(t.device)
end

---@class nyx.gradcheck.Axis
---@field element integer? the only element that is not zero, and 1
---@field weights number[]? or all of them
---@field vector nyx.Tensor? with these weights
---@field size number the sum of the weights' magnitudes

--- The directions of an input, or the weights of an output.
---@param t nyx.Tensor
---@param fast boolean
---@return nyx.gradcheck.Axis[]
function M.axes(t, fast)
  local list = {}
  if not fast then
    for k = 1, t:numel() do list[k] = { element = k, size = 1 } end
  elseif t:numel() > 0 then
    local vector = M.random_like(t)
    vector = vector / (vector * vector):sum():sqrt()
    list[1] = { vector = vector, weights = values(vector), size = vector:abs():sum():item() }
  end
  return list
end

--- What an axis makes of a list of values: one of them, or their weighted sum.
---@param axis nyx.gradcheck.Axis
---@param list number[]? nil: all zero
---@return number
function M.along(axis, list)
  if not list then return 0 end
  if axis.element then return list[axis.element] end
  local sum = 0
  for k, w in ipairs(axis.weights) do sum = sum + w * list[k] end
  return sum
end

-- Calls fn(axis, vector) for all axes, vector being t with their weights. Do not keep it.
local function each_vector(axes, t, fn)
  local unit = #axes > 0 and axes[1].element and nyx.zeros_like(t:detach())
  for k, axis in ipairs(axes) do
    if not unit then
      fn(k, axis.vector)
    else
      local cell = subject.cell(unit, axis.element)
      cell:fill_(1)
      fn(k, unit)
      cell:fill_(0)
    end
  end
end

-- ---------------------------------------------------------------- columns

-- (above - below) / step of two lists; infinities that stay do not change.
local function quotients(above, below, step)
  local list = {}
  for k, v in ipairs(above) do
    list[k] = v == below[k] and 0 or (v - below[k]) / step
  end
  return list
end

-- The results as lists, where they are floats.
local function read(results)
  local lists = {}
  for j, y in ipairs(results) do
    lists[j] = subject.is_float[y.dtype] and values(y) or false
  end
  return lists
end

-- place(step) moves the input and says where it is then, rounded to the input's dtype.
local function difference(call, eps, place)
  local high = place(eps)
  local above = call()
  local low = place(-eps)
  local below = call()
  local column = {}
  for j, list in ipairs(above) do
    column[j] = list and quotients(list, below[j], high - low)
  end
  return column
end

--- By central differences with step eps.
---@param s nyx.gradcheck.Subject
---@param directions nyx.gradcheck.Axis[][] of every input
---@param eps number
---@return table columns
function M.differences(s, directions, eps)
  local columns = {}
  for i, argument in ipairs(s.checked) do
    local x = s.args[argument]
    local moved = subject.copy(x)
    local function call() return read(subject.call(s, { argument }, { moved }, nyx.no_grad)) end
    columns[i] = {}
    for a, axis in ipairs(directions[i]) do
      if axis.element then
        local cell = subject.cell(moved, axis.element)
        local old = cell:item()
        columns[i][a] = difference(call, eps, function(step)
          return cell:fill_(old + step):item()
        end)
        cell:fill_(old)
      else
        columns[i][a] = difference(call, eps, function(step)
          moved:copy_(x:detach() + axis.vector * step)
          return step
        end)
      end
    end
  end
  return columns
end

-- By levels of pairs, made by raise(level, x, vector): the second parts of results that
-- lower(level, y) gives, as lists; false: zero.
local function by_levels(s, directions, open, raise, lower)
  local columns = {}
  for i, argument in ipairs(s.checked) do
    local x = subject.copy(s.args[argument])
    columns[i] = {}
    each_vector(directions[i], x, function(a, vector)
      columns[i][a] = open(function(level)
        local column, lifted = {}, raise(level, x, vector)
        for j, y in ipairs(subject.call(s, { argument }, { lifted }, nyx.no_grad)) do
          column[j] = lower(level, y)
        end
        return column
      end)
    end)
  end
  return columns
end

--- By forward mode.
---@param s nyx.gradcheck.Subject
---@param directions nyx.gradcheck.Axis[][] of every input
---@return table columns
function M.forward(s, directions)
  return by_levels(s, directions, lift.dual_level, lift.dual, function(level, y)
    local _, tangent = lift.parts(level, y)
    return tangent and values(tangent) or false
  end)
end

-- The step: about 1e-20, and a power of two, which costs no digit to divide by.
local STEP = 2 ^ -66

--- By the complex step.
---@param s nyx.gradcheck.Subject
---@param directions nyx.gradcheck.Axis[][] of every input
---@return table columns
function M.complex_step(s, directions)
  return by_levels(s, directions, lift.complex_level, function(level, x, vector)
    return lift.complex(level, x, vector * STEP)
  end, function(level, y)
    local _, imaginary = lift.complex_parts(level, y)
    return imaginary and values(imaginary / STEP) or false
  end)
end

-- ---------------------------------------------------------------- rows

--- Records a call on variables of its own.
---@param s nyx.gradcheck.Subject
---@return nyx.Tensor[] variables
---@return nyx.Tensor[] results
function M.record(s)
  local variables = {}
  for i, argument in ipairs(s.checked) do
    variables[i] = subject.copy(s.args[argument]):requires_grad_(true)
  end
  return variables, subject.call(s, s.checked, variables, nyx.enable_grad)
end

local function gradients(y, variables, vector)
  local lists = {}
  local grads = nyx.grad(y, variables, { gradient = vector, retain_graph = true })
  for i = 1, #variables do lists[i] = grads[i] and values(grads[i]) or false end
  return lists
end

--- By backward passes; rows[j] is nil for results without a gradient.
---@param variables nyx.Tensor[]
---@param results nyx.Tensor[]
---@param weights nyx.gradcheck.Axis[][] of every result
---@return table rows
function M.backward(variables, results, weights)
  local rows = {}
  for j, y in ipairs(results) do
    if y.requires_grad then
      rows[j] = {}
      each_vector(weights[j], y, function(b, vector)
        rows[j][b] = gradients(y, variables, vector)
      end)
    end
  end
  return rows
end

--- By one backward pass for each result, over the batch of its weights.
---@param variables nyx.Tensor[]
---@param results nyx.Tensor[]
---@param weights nyx.gradcheck.Axis[][] of every result
---@return table rows
function M.batched(variables, results, weights)
  local rows = {}
  for j, y in ipairs(results) do
    if y.requires_grad and #weights[j] > 0 then
      local stack = {}
      each_vector(weights[j], y, function(b, vector) stack[b] = vector:clone() end)
      local grads = func.vmap(function(vector)
        local list = nyx.grad(y, variables, { gradient = vector, retain_graph = true })
        for i, x in ipairs(variables) do list[i] = list[i] or nyx.zeros_like(x:detach()) end
        return list
      end)(nyx.stack(stack, 1))
      rows[j] = {}
      for b = 1, #weights[j] do
        rows[j][b] = {}
        for i, g in ipairs(grads) do rows[j][b][i] = values(g:select(1, b)) end
      end
    end
  end
  return rows
end

return M
