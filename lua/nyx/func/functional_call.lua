-- nyx.func.functional_call and stack_module_state: modules as functions of their parameters.
-- Read next: ../func.lua, ../nn/module.lua.
local check = require "nyx.check"
local checkpoint = require "nyx.checkpoint"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local unpack = table.unpack or unpack

local M = {}

local function pack(...) return { n = select("#", ...), ... } end

-- ---------------------------------------------------------------- functional_call

local WHERE = "func.functional_call"

-- Where each of the tensors goes: everywhere the module holds the one it stands for, under
-- other names too (tied weights).
local function places_of(module, parameters)
  local own, by_name, given = module:state_places(), {}, {}
  for _, place in ipairs(own) do by_name[place.name] = place.tensor end
  for name, value in pairs(parameters) do
    check.tensor(WHERE, tostring(name), value)
    local old = by_name[name]
    if not old then
      check.fail("%s: the module has no parameter or buffer '%s'", WHERE, tostring(name))
    end
    if table.concat(old.shape, "x") ~= table.concat(value.shape, "x") then
      check.fail("%s: '%s' is %s, the module's is %s", WHERE, name, check.describe(value),
        check.describe(old))
    end
    given[#given + 1] = { name = name, value = value, id = nyx.system.tensor_id(old) }
  end
  table.sort(given, function(a, b) return a.name < b.name end)
  local instead, name_of = {}, {}
  for _, entry in ipairs(given) do
    if instead[entry.id] and instead[entry.id] ~= entry.value then
      check.fail("%s: '%s' and '%s' are one tensor in the module and two in the parameters; give "
        .. "one of them, or the same tensor for both", WHERE, name_of[entry.id], entry.name)
    end
    instead[entry.id], name_of[entry.id] = entry.value, entry.name
  end
  local places = {}
  for _, place in ipairs(own) do
    local value = instead[nyx.system.tensor_id(place.tensor)]
    if value then
      places[#places + 1] = { owner = place.owner, key = place.key, value = value }
    end
  end
  return places
end

-- fn(...) with the tensors in their places; what was there comes back. Nothing may yield in
-- between, as others would find them there: the guard is a C function, which cannot be left so.
local function with_places(places, fn, ...)
  local before = {}
  for k, place in ipairs(places) do
    before[k] = rawget(place.owner, place.key)
    rawset(place.owner, place.key, place.value)
  end
  local guard = nyx.is_grad_enabled() and nyx.enable_grad or nyx.no_grad
  local result = pack(pcall(guard, fn, ...))
  for k, place in ipairs(places) do rawset(place.owner, place.key, before[k]) end
  if not result[1] then
    if type(result[2]) == "string" and result[2]:find("attempt to yield across", 1, true) then
      check.fail("%s: the module yields, and would leave the parameters in its place to others; "
        .. "expected it to return first", WHERE)
    end
    error(result[2], 0)
  end
  return unpack(result, 2, result.n)
end

--- functional_call(module, parameters, ...): module(...) with the tensors of the table
--- `parameters` ("layer.weight" -> tensor) in place of its own, which stay as they are: what
--- makes gradients, vmap and jvp by a module's parameters possible. A tensor that the module
--- holds under several names (tied weights) is replaced under all of them. Checkpoints inside
--- run again with the same tensors. The module may not yield to the coroutine around it.
---@param module nyx.nn.Module
---@param parameters table<string, nyx.Tensor>
---@param ... any
---@return any ...
function M.functional_call(module, parameters, ...)
  if not Module.is_module(module) then
    check.fail("%s: 'module' is %s, expected a module", WHERE, check.describe(module))
  end
  check.type(WHERE, "parameters", parameters, "table")
  local places = places_of(module, parameters)
  local function around(fn, ...) return with_places(places, fn, ...) end
  return checkpoint.surround(around, module, ...)
end

-- ---------------------------------------------------------------- stack_module_state

local function stacked(where, models, iterate)
  local lists, names = {}, {}
  for m, model in ipairs(models) do
    for name, t in iterate(model) do
      if m == 1 then
        lists[name] = {}
        names[#names + 1] = name
      end
      local list = lists[name]
      if not list or table.concat(t.shape, "x") ~= table.concat((list[1] or t).shape, "x") then
        check.fail("%s: '%s' of model %d is %s, that of model 1 is %s; expected models of one kind",
          where, name, m, check.describe(t), list and check.describe(list[1]) or "not there")
      end
      list[#list + 1] = t
    end
  end
  local state = {}
  for _, name in ipairs(names) do
    if #lists[name] ~= #models then
      check.fail("%s: not every model has '%s'; expected models of one kind", where, name)
    end
    state[name] = nyx.no_grad(nyx.stack, lists[name])
  end
  return state
end

--- stack_module_state(models): the parameters and the buffers of models of one kind, each
--- stacked along a new first dimension, by name: what vmap maps a functional_call over to run
--- an ensemble at once. The stacks are leaves of their own; parameters require gradients.
---@param models nyx.nn.Module[]
---@return table<string, nyx.Tensor> parameters, table<string, nyx.Tensor> buffers
function M.stack_module_state(models)
  local where = "func.stack_module_state"
  check.type(where, "models", models, "table")
  if #models == 0 then check.fail("%s: 'models' is empty, expected modules", where) end
  for m, model in ipairs(models) do
    if not Module.is_module(model) then
      check.fail("%s: models[%d] is %s, expected a module", where, m, check.describe(model))
    end
  end
  local parameters = stacked(where, models, Module.named_parameters)
  for name, t in pairs(parameters) do parameters[name] = t:requires_grad_(true) end
  return parameters, stacked(where, models, Module.named_buffers)
end

return M
