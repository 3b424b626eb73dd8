-- Hooks of modules: functions that see, and may replace, what goes into a module and comes
-- out of it, forward and backward. Backward hooks sit on two functions that pass everything
-- through, one around the inputs and one around the outputs. Read next: module.lua,
-- lua/nyx/custom.lua.
local class = require "nyx.class"
local check = require "nyx.check"
local nyx = require "nyx"

local unpack = unpack or table.unpack

local M = {}

local function pack(...)
  return { n = select("#", ...), ... }
end

-- ---------------------------------------------------------------- registration

--- What registering gives: handle:remove() takes the hook away.
---@class nyx.nn.HookHandle
local Handle = class("HookHandle")

---@param module nyx.nn.Module
---@param kind string
---@param fn function
function Handle:init(module, kind, fn)
  self.module, self.kind, self.fn = module, kind, fn
end

--- The hook will not be called again; calls that have begun finish without it.
function Handle:remove()
  local module, kinds = self.module, self.module and rawget(self.module, "_hooks")
  self.module = nil
  local list = kinds and kinds[self.kind]
  if not list then return end
  local left = {} -- a new list: the old one may be on its way through
  for _, handle in ipairs(list) do
    if not rawequal(handle, self) then left[#left + 1] = handle end
  end
  kinds[self.kind] = #left > 0 and left or nil
  if next(kinds) == nil then rawset(module, "_hooks", nil) end
end

function Handle:__tostring()
  return self.module and "nn.HookHandle" or "nn.HookHandle (removed)"
end

--- Adds a hook of a kind: forward_pre, forward, backward_pre, backward.
---@param module nyx.nn.Module
---@param where string
---@param kind string
---@param fn function
---@return nyx.nn.HookHandle
function M.add(module, where, kind, fn)
  local meta = type(fn) ~= "function" and getmetatable(fn)
  if type(fn) ~= "function" and not (type(meta) == "table" and meta.__call) then
    check.fail("%s: the hook is %s, expected a function", where, check.describe(fn))
  end
  local kinds = rawget(module, "_hooks")
  if not kinds then
    kinds = {}
    rawset(module, "_hooks", kinds)
  end
  local handle, list = Handle(module, kind, fn), {}
  for i, other in ipairs(kinds[kind] or {}) do list[i] = other end
  list[#list + 1] = handle
  kinds[kind] = list
  return handle
end

-- ---------------------------------------------------------------- backward

local function spec_of(t)
  return ("shape (%s), dtype %s on %s"):format(table.concat(t.shape, "x"), t.dtype, t.device)
end

-- grads (1..n) with what a hook gave put in their place.
local function replaced(where, grads, given)
  if given == nil then return grads end
  if nyx.is_tensor(given) and grads.n == 1 then given = { given } end
  if type(given) ~= "table" then
    check.fail("%s: a hook gave %s, expected a list of gradients or nothing", where,
      check.describe(given))
  end
  local result = { n = grads.n }
  for i = 1, grads.n do
    result[i] = given[i] == nil and grads[i] or given[i]
    if result[i] ~= nil and not nyx.is_tensor(result[i]) then
      check.fail("%s: a hook gave %s as gradient %d, expected a tensor", where,
        check.describe(result[i]), i)
    elseif result[i] ~= nil and grads[i] == nil then
      check.fail("%s: a hook gave a gradient for number %d, which has none", where, i)
    elseif result[i] ~= nil and spec_of(result[i]) ~= spec_of(grads[i]) then
      check.fail("%s: a hook gave gradient %d of %s, expected %s", where, i, spec_of(result[i]),
        spec_of(grads[i]))
    end
  end
  return result
end

local function name_of(state, what)
  return ("%s:register_full_backward_%s"):format(state.module:class_name(), what)
end

-- Gradients by the position of what they belong to; positions.n places.
local function spread(positions, ...)
  local grads = { n = positions.n }
  for k, i in ipairs(positions) do grads[i] = (select(k, ...)) end
  return grads
end

local function gather(positions, grads)
  local list = {}
  for k, i in ipairs(positions) do list[k] = grads[i] end
  return unpack(list, 1, #positions)
end

local function run_hooks(state, grad_input)
  local grad_output = state.grad_output
  state.grad_output = nil -- it may hold the graph that holds this
  for _, handle in ipairs(state.hooks.backward or {}) do
    grad_input = replaced(name_of(state, "hook"), grad_input,
      handle.fn(state.module, grad_input, grad_output))
  end
  return grad_input
end

local outputs_tap = nyx.Function("module_output", {
  forward = function(ctx, state, ...)
    ctx.state = state
    return ...
  end,
  backward = function(ctx, ...)
    local state = ctx.state
    local grads = spread(state.outputs, ...)
    for _, handle in ipairs(state.hooks.backward_pre or {}) do
      grads = replaced(name_of(state, "pre_hook"), grads, handle.fn(state.module, grads))
    end
    state.grad_output = grads
    if #state.inputs == 0 then run_hooks(state, { n = state.inputs.n }) end
    return nil, gather(state.outputs, grads)
  end,
})

local inputs_tap = nyx.Function("module_input", {
  forward = function(ctx, state, ...)
    ctx.state = state
    return ...
  end,
  backward = function(ctx, ...)
    local state = ctx.state
    return nil, gather(state.inputs, run_hooks(state, spread(state.inputs, ...)))
  end,
})

-- Which values carry gradients.
local function differentiable(values)
  local positions = { n = values.n }
  for i = 1, values.n do
    if nyx.is_tensor(values[i]) and values[i].requires_grad then positions[#positions + 1] = i end
  end
  return positions
end

-- values with those at positions passed through tap.
local function through(tap, state, positions, values)
  if #positions == 0 then return values end
  local result, passed = { n = values.n }, pack(tap(state, gather(positions, values)))
  for i = 1, values.n do result[i] = values[i] end
  for k, i in ipairs(positions) do result[i] = passed[k] end
  return result
end

-- ---------------------------------------------------------------- the call

--- module:forward(...) with the module's hooks around it.
---@param module nyx.nn.Module
---@param ... any
---@return any
function M.call(module, ...)
  local hooks = rawget(module, "_hooks")
  local inputs, state = pack(...), nil
  for _, handle in ipairs(hooks.forward_pre or {}) do
    local given = pack(handle.fn(module, unpack(inputs, 1, inputs.n)))
    if given.n > 1 or given[1] ~= nil then inputs = given end
  end
  if (hooks.backward or hooks.backward_pre) and nyx.is_grad_enabled() then
    -- The lists as they are now: a list never changes.
    state = { module = module, inputs = differentiable(inputs),
      hooks = { backward = hooks.backward, backward_pre = hooks.backward_pre } }
    inputs = through(inputs_tap, state, state.inputs, inputs)
  end
  local outputs = pack(module:forward(unpack(inputs, 1, inputs.n)))
  for _, handle in ipairs(hooks.forward or {}) do
    local given = pack(handle.fn(module, inputs, unpack(outputs, 1, outputs.n)))
    if given.n > 1 or given[1] ~= nil then outputs = given end
  end
  if state then
    state.outputs = differentiable(outputs)
    outputs = through(outputs_tap, state, state.outputs, outputs)
  end
  return unpack(outputs, 1, outputs.n)
end

return M
