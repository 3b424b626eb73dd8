-- optim.Optimizer: parameter groups, state, and the loop around one step. An optimiser
-- derives from it and defines `update(group, parameter, grad, state)`.
-- Read next: sgd.lua, adam.lua; the arithmetic is in core/op/optim.c.
local class = require "nyx.class"
local check = require "nyx.check"
local get_total_norm = require("nyx.nn.utils").get_total_norm
local nyx = require "nyx"

---@class nyx.optim.Optimizer
---@field param_groups table[] each {params = {...}, lr = ..., ...}
---@field state table<any, table> what a parameter's update remembers, by parameter
---@field max_grad_norm? number what the gradients' norm, all together, is limited to in a step
---@field grad_norm? number that norm at the last step, before; nil without max_grad_norm
---@field grad_scale number what gradients are to be multiplied by in this step
---@field scales_gradients? boolean on a class: its update does so itself
local Optimizer = class("Optimizer")
Optimizer.grad_scale = 1

--- Lists of parameters in the shapes PyTorch accepts: a list of tensors, or a list of
--- groups {params = {...}, lr = ...} with settings of their own.
---@param where string the optimiser, for messages
---@param params table
---@param options? table settings that differ from the defaults, and max_grad_norm
---@param defaults table every setting of a group with its value
---@param known string the names of all these settings
function Optimizer:setup(where, params, options, defaults, known)
  options = check.options(where, options, known .. " max_grad_norm")
  for name in known:gmatch("%S+") do
    if options[name] ~= nil then defaults[name] = options[name] end
  end
  self.max_grad_norm = options.max_grad_norm
  if self.max_grad_norm then check.number(where, "max_grad_norm", self.max_grad_norm, 0) end
  if type(params) ~= "table" or getmetatable(params) then
    check.fail("%s: 'params' is %s, expected a table of tensors such as model:parameters()", where,
      type(params) == "table" and "a module or another object" or check.describe(params))
  end
  if #params == 0 then
    check.fail("%s: 'params' is empty, expected tensors such as model:parameters()", where)
  end
  self.where, self.known = where, known
  self.param_groups, self.state = {}, {}
  self.defaults = defaults
  if nyx.is_tensor(params[1]) then params = { { params = params } } end
  for _, group in ipairs(params) do self:add_param_group(group) end
end

--- Adds parameters with settings of their own: {params = {...}, lr = 0.01}.
---@param group table
function Optimizer:add_param_group(group)
  local where = self.where
  check.type(where, "a group", group, "table")
  check.type(where, "params of a group", group.params, "table")
  check.options(where, group, "params initial_lr " .. self.known)
  local own = { params = {} }
  for name, value in pairs(self.defaults) do own[name] = value end
  for name, value in pairs(group) do
    if name ~= "params" then own[name] = value end
  end
  self:check_group(own)
  local seen = {}
  for _, other in ipairs(self.param_groups) do
    for _, parameter in ipairs(other.params) do seen[parameter] = true end
  end
  for i, parameter in ipairs(group.params) do
    check.tensor(where, ("params[%d]"):format(i), parameter)
    if seen[parameter] then
      check.fail("%s: parameter %d appears twice; every parameter belongs to one group", where, i)
    end
    if not parameter.is_leaf then
      check.fail("%s: parameter %d was made by %s, so gradients do not stay on it; expected a "
        .. "leaf (detach it first)", where, i, parameter.grad_fn.name)
    end
    seen[parameter] = true
    own.params[i] = parameter
  end
  self.param_groups[#self.param_groups + 1] = own
end

--- Checks one group's settings; optimisers with more settings extend it.
---@param group table
function Optimizer:check_group(group)
  check.number(self.where, "lr", group.lr, 0)
  check.number(self.where, "weight_decay", group.weight_decay, 0)
end

-- With max_grad_norm: the factor of nn.utils.clip_grad_norm_, for the update to apply in its
-- one pass; the gradients themselves are only read.
local function measure_gradients(self)
  local grads = {}
  for _, group in ipairs(self.param_groups) do
    for _, parameter in ipairs(group.params) do grads[#grads + 1] = parameter.grad end
  end
  local norm = grads[1] and get_total_norm(grads):item() or 0
  self.grad_norm = norm
  local factor = self.max_grad_norm / (norm + 1e-6)
  self.grad_scale = factor >= 1 and 1 or factor -- nan stays nan
end

function Optimizer:update_all()
  local states = self.state
  if self.max_grad_norm then measure_gradients(self) end
  for _, group in ipairs(self.param_groups) do
    local params = group.params
    for i = 1, #params do
      local parameter = params[i]
      local grad = parameter.grad
      if grad then
        local state = states[parameter]
        local fresh = not state
        if fresh then
          state = {}
          states[parameter] = state
        end
        if self.grad_scale ~= 1 and not self.scales_gradients then
          grad = grad * self.grad_scale
        end
        self:update(group, parameter, grad, state)
        if fresh then nyx.keep(state) end -- it outlives the nyx.scope of this step
      end
    end
  end
end

--- One step: changes every parameter that has a gradient. `closure`, if given, is called
--- first, computes the loss and its gradients, and its result is returned.
---@param closure? fun(): any
---@return any loss
function Optimizer:step(closure)
  local loss = closure and closure()
  nyx.no_grad(self.update_all, self)
  return loss
end

--- Forgets the gradients of all parameters.
function Optimizer:zero_grad()
  for _, group in ipairs(self.param_groups) do
    local params = group.params
    for i = 1, #params do params[i].grad = nil end
  end
end

--- The state as plain tables, for nyx.save: parameters are numbered in order.
---@return {state: table[], param_groups: table[]}
function Optimizer:state_dict()
  local result = { state = {}, param_groups = {} }
  local number = 0
  for g, group in ipairs(self.param_groups) do
    local copy = { params = {} }
    for name, value in pairs(group) do
      if name ~= "params" then copy[name] = value end
    end
    for i, parameter in ipairs(group.params) do
      number = number + 1
      copy.params[i] = number
      local own = {}
      for name, value in pairs(self.state[parameter] or {}) do own[name] = value end
      result.state[number] = own
    end
    result.param_groups[g] = copy
  end
  return result
end

--- Takes over a state that state_dict gave, for the same parameters in the same order.
---@param saved {state: table[], param_groups: table[]}
function Optimizer:load_state_dict(saved)
  local where = self.where .. ".load_state_dict"
  check.type(where, "state", saved, "table")
  check.type(where, "state.state", saved.state, "table")
  check.type(where, "state.param_groups", saved.param_groups, "table")
  if #saved.param_groups ~= #self.param_groups then
    check.fail("%s: the state has %d parameter groups, the optimiser %d", where,
      #saved.param_groups, #self.param_groups)
  end
  local states, number = {}, 0
  for g, group in ipairs(self.param_groups) do
    local other = saved.param_groups[g]
    local listed = type(other) == "table" and type(other.params) == "table" and #other.params
    if listed ~= #group.params then
      check.fail("%s: group %d has %d parameters in the optimiser, %s in the state", where, g,
        #group.params, listed or "none")
    end
    for _, parameter in ipairs(group.params) do
      number = number + 1
      local own = {}
      for name, value in pairs(saved.state[number] or {}) do
        if nyx.is_tensor(value) then
          local got, expected = table.concat(value.shape, "x"), table.concat(parameter.shape, "x")
          if got ~= expected then
            check.fail("%s: %s of parameter %d has shape (%s), expected (%s)", where,
              tostring(name), number, got, expected)
          end
          value = value:detach():clone()
        end
        own[name] = value
      end
      states[parameter] = next(own) and own or nil
    end
  end
  for g, group in ipairs(self.param_groups) do
    for name, value in pairs(saved.param_groups[g]) do
      if name ~= "params" then group[name] = value end
    end
    self:check_group(group)
  end
  self.state = states
end

return Optimizer
