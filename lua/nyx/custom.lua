-- nyx.Function: functions with a gradient written in Lua. Forward runs without recording;
-- then one node stands for all of it, whose gradient is the function `backward`.
-- Read next: bindings/lua/function.c, core/grad/function.c.
local nyx = require "nyx.core"
local check = require "nyx.check"

local unpack = unpack or table.unpack
local system = nyx.system
local is_lifted = nyx.lift.is_lifted

local M = {}

local function pack(...)
  return { n = select("#", ...), ... }
end

-- ---------------------------------------------------------------- the context

local SAVED, CONSTANT, NAME = {}, {}, {} -- keys of a context that are nobody's names

--- What forward and backward share: `ctx` of one call. Other fields are free for use.
---@class nyx.FunctionContext
---@field needs_input_grad boolean[] whether the gradient of argument i is asked for
local Context = {}
Context.__index = Context

--- Keeps tensors (or nil) for backward, where `saved_tensors` gives them. Fields of ctx can hold
--- tensors too, but not results: they hold ctx in turn, a cycle that only backward breaks.
---@param ... nyx.Tensor?
function Context:save_for_backward(...)
  local saved = pack(...)
  saved.tensors, saved.places = {}, {}
  for i = 1, saved.n do
    if nyx.is_tensor(saved[i]) then
      saved.tensors[#saved.tensors + 1] = saved[i]
      saved.places[#saved.places + 1] = i
    elseif saved[i] ~= nil then
      check.fail("%s: save_for_backward got %s, expected tensors or nil; keep other values in "
        .. "fields of ctx", self[NAME], check.describe(saved[i]))
    end
  end
  self[SAVED] = saved
end

--- What `save_for_backward` got. It is an error when one was changed in place since.
---@return nyx.Tensor ...
function Context:saved_tensors()
  local saved = self[SAVED]
  if not saved then
    check.fail("%s: saved_tensors: nothing was saved; call ctx:save_for_backward(...) first",
      self[NAME])
  end
  return unpack(saved, 1, saved.n)
end

--- Says that these results have no gradient.
---@param ... nyx.Tensor
function Context:mark_non_differentiable(...)
  local constant = self[CONSTANT] or {}
  for i = 1, select("#", ...) do
    local t = select(i, ...)
    if not nyx.is_tensor(t) then
      check.fail("%s: mark_non_differentiable got %s, expected tensors", self[NAME],
        check.describe(t))
    end
    constant[#constant + 1] = t
  end
  self[CONSTANT] = constant
end

local function holds(list, value)
  for i = 1, #list do
    if rawequal(list[i], value) or list[i] == value then return true end
  end
  return false
end

-- ---------------------------------------------------------------- backward

-- What backward gave, as the list of the arguments' gradients that C takes.
local function check_gradients(name, given, inputs, needs)
  for i = 1, math.max(given.n, inputs.n) do
    local g = given[i]
    if g ~= nil and not nyx.is_tensor(g) then
      check.fail("%s: backward gave %s as gradient %d, expected a tensor or nil", name,
        check.describe(g), i)
    elseif g ~= nil and i > inputs.n then
      check.fail("%s: backward gave %d gradients, expected %d: one for each argument of forward",
        name, given.n, inputs.n)
    elseif g ~= nil and not inputs[i] then
      check.fail("%s: backward gave a gradient for argument %d, which is no tensor; give nil there",
        name, i)
    elseif g == nil and i > given.n and needs[i] then
      check.fail("%s: backward gave %d gradients, expected %d: one for each argument of forward",
        name, given.n, inputs.n)
    end
  end
  return given
end

-- The gradient that C calls. `inputs[i]`: whether argument i was a tensor; `specs[k]`: what
-- result k is; `kept`: what save_for_backward got.
local function gradient_of(self, ctx, inputs, specs, kept)
  local count, places = kept.n, kept.places
  return function(tensors, grads, needs)
    local saved = { n = count }
    for k, i in ipairs(places) do saved[i] = tensors[k] end
    for k = 1, specs.n do
      local spec = specs[k]
      if spec and not grads[k] then
        grads[k] = nyx.zeros(spec.shape, { dtype = spec.dtype, device = spec.device })
      elseif not spec then
        grads[k] = nil
      end
    end
    -- Backward may run itself again, through another pass over its graph.
    local outer_saved, outer_needs = ctx[SAVED], ctx.needs_input_grad
    ctx[SAVED], ctx.needs_input_grad = saved, needs
    local given = pack(self.backward(ctx, unpack(grads, 1, specs.n)))
    ctx[SAVED], ctx.needs_input_grad = outer_saved, outer_needs
    return check_gradients(self.name, given, inputs, needs)
  end
end

-- ---------------------------------------------------------------- the call

-- The versions of arguments whose gradient is recorded, and an error where forward changed one:
-- its history would go on as if nothing had happened.
local function versions_of(arguments, enabled)
  local versions = {}
  for k, t in ipairs(arguments) do
    versions[k] = enabled and t.requires_grad and system.tensor_version(t)
  end
  return versions
end

local function check_unchanged(name, arguments, versions)
  for k, t in ipairs(arguments) do
    if versions[k] and system.tensor_version(t) ~= versions[k] then
      check.fail("%s: forward changed an argument in place, tensor %d of those it got, which "
        .. "requires a gradient; change a copy, x:clone(), and give that", name, k)
    end
  end
end

-- Results as what a node can hold: tensors of their own, without history. One that takes the
-- place of a tensor in `constant` is there, too.
local function own_results(results, arguments, constant)
  local seen = {}
  for k = 1, results.n do
    local t = results[k]
    if nyx.is_tensor(t) then
      if t.requires_grad or holds(arguments, t) or holds(seen, t) then
        local own = t:detach()
        if holds(constant, t) then constant[#constant + 1] = own end
        t = own
      end
      results[k] = t
      seen[#seen + 1] = t
    end
  end
end

---@class nyx.Function
---@field name string
local Function = {}
Function.__index = Function

--- Calls the function; `f(...)` is the same.
---@param ... any
---@return any ... what forward gives
function Function:apply(...)
  local n = select("#", ...)
  local enabled = nyx.is_grad_enabled()
  local ctx = setmetatable({ [NAME] = self.name, needs_input_grad = {} }, Context)
  local inputs, is_input, arguments, wanted = {}, { n = n }, {}, false
  for i = 1, n do
    local value = select(i, ...)
    local tensor = nyx.is_tensor(value)
    inputs[i], is_input[i] = tensor and value or false, tensor
    if tensor then arguments[#arguments + 1] = value end
    local lifted = tensor and is_lifted(value) -- in jvp or vmap: C knows what is wanted
    ctx.needs_input_grad[i] = tensor and (lifted or enabled and value.requires_grad)
    wanted = wanted or ctx.needs_input_grad[i]
  end
  local versions = versions_of(arguments, enabled)
  local results = pack(nyx.no_grad(self.forward, ctx, ...))
  check_unchanged(self.name, arguments, versions)
  local saved = ctx[SAVED] or { n = 0, tensors = {}, places = {} }
  local constant = ctx[CONSTANT] or {}
  own_results(results, arguments, constant)
  ctx[SAVED], ctx[CONSTANT] = nil, nil
  if wanted then
    local outputs, specs = {}, { n = results.n }
    for k = 1, results.n do
      local t = results[k]
      local ours = nyx.is_tensor(t) and not holds(constant, t)
      outputs[k] = ours and t or false
      specs[k] = ours and { shape = t.shape, dtype = t.dtype, device = t.device }
    end
    system.record_function(self.name, inputs, n, outputs, results.n, saved.tensors,
      #saved.tensors, gradient_of(self, ctx, is_input, specs, saved), ctx)
  end
  return unpack(results, 1, results.n)
end

Function.__call = Function.apply

function Function:__tostring()
  return ("nyx.Function (%s)"):format(self.name)
end

-- A backward that says so rather than give a gradient of the gradient.
local function once(name, backward)
  return function(...)
    if nyx.is_grad_enabled() then
      check.fail("%s: backward is once_differentiable, it has no gradient of its own; leave out "
        .. "create_graph, or write backward with ops and without once_differentiable", name)
    end
    return backward(...)
  end
end

--- Makes a function with a gradient of its own.
---
---     local Exp = nyx.Function("exp", {
---       forward = function(ctx, x)
---         local y = x:exp()
---         ctx:save_for_backward(y)
---         return y
---       end,
---       backward = function(ctx, g)
---         local y = ctx:saved_tensors()
---         return g * y
---       end,
---     })
---     local y = Exp(x)
---
--- backward gets a gradient for every result (nil for those that are no tensors) and gives
--- one for every argument, nil for those that are no tensors. Written with ops, it can be
--- differentiated again; with `once_differentiable` it says that it cannot, which is an error
--- under create_graph. forward may not change arguments that require gradients.
---
--- A field of ctx that holds a result, or a closure that does, is a cycle through the graph that
--- the collector does not see: it goes when backward has run. ctx:save_for_backward is free of it.
---@param name string what it is called in messages and x.grad_fn.name
---@param definition {forward: function, backward: function, once_differentiable: boolean?}
---@return nyx.Function
function M.Function(name, definition)
  check.type("Function", "name", name, "string")
  check.type("Function", "definition", definition, "table")
  check.options("Function", definition, "forward backward once_differentiable")
  check.callable("Function", "forward", definition.forward)
  check.callable("Function", "backward", definition.backward)
  local backward = definition.backward
  if definition.once_differentiable then backward = once(name, backward) end
  return setmetatable({ name = name, forward = definition.forward, backward = backward }, Function)
end

return M
