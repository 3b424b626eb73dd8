-- nn.utils.fuse: layers that follow a convolution or a linear layer, taken into it. A batch
-- norm that only scales and shifts becomes part of the weight and the bias; an activation is
-- computed in the layer's own pass. Read next: conv.lua, linear.lua, norm.lua.
local check = require "nyx.check"
local container = require "nyx.nn.container"
local conv = require "nyx.nn.conv"
local linear = require "nyx.nn.linear"
local Module = require "nyx.nn.module"
local norm = require "nyx.nn.norm"
local nyx = require "nyx"

local where = "nn.utils.fuse"

-- A layer of exactly this class; one with hooks must stay what they see.
local function is(module, class)
  return Module.is_module(module) and getmetatable(module) == class and not rawget(module, "_hooks")
end

-- The batch norm that may follow a layer, whose outputs are dimension 2 of its results.
local function norm_after(layer)
  return is(layer, conv.Conv2d) and norm.BatchNorm2d or norm.BatchNorm1d
end

local function outputs_of(layer)
  return layer.out_channels or layer.out_features
end

local function folds(layer, module)
  return is(module, norm_after(layer)) and module.running_mean ~= nil
    and module.num_features == outputs_of(layer) and not layer.activation
end

-- Replaces a parameter by one of other values, of the dtype of `like`, as trainable.
local function replace(layer, name, value, like)
  local old = layer[name]
  layer:register_parameter(name, Module.Parameter(value:to(like.dtype)))
  if not (old or like).requires_grad then layer[name]:requires_grad_(false) end
end

-- (w x + b - mean) * scale + shift, with the factors inside; in float64.
local function fold(layer, module)
  nyx.no_grad(function()
    local scale = (module.running_var:double() + module.eps):rsqrt()
    if module.weight then scale = scale * module.weight:double() end
    local bias = -module.running_mean:double()
    if layer.bias then bias = bias + layer.bias:double() end
    bias = bias * scale
    if module.bias then bias = bias + module.bias:double() end
    local weight, rows = layer.weight, { outputs_of(layer) }
    for d = 2, weight:dim() do rows[d] = 1 end
    replace(layer, "weight", weight:double() * scale:reshape(rows), weight)
    replace(layer, "bias", bias, weight)
  end)
end

-- The name of the op, where it is one that the layer can compute; of a class that says so itself.
local function activation_of(layer, module)
  if layer.activation or rawget(module, "_hooks") then return nil end
  local op_name = rawget(getmetatable(module), "op_name")
  return op_name and op_name(module)
end

-- Takes into the layer parent[keys[first]] what follows it there; gives how far it came.
local function fuse_keys(parent, keys, first)
  local layer, at = parent[keys[first]], first
  for i = first + 1, #keys do
    local module = parent[keys[i]]
    if folds(layer, module) then
      fold(layer, module)
    elseif activation_of(layer, module) then
      layer.activation = activation_of(layer, module)
    elseif not is(module, container.Identity) then
      break
    end
    if not is(module, container.Identity) then parent[keys[i]] = container.Identity():eval() end
    at = i
  end
  return at
end

-- How often each module is somebody's.
local function count_uses(model)
  local uses = {}
  for _, module in ipairs(model:modules()) do
    for _, child in ipairs(module:children()) do uses[child] = (uses[child] or 0) + 1 end
  end
  return uses
end

local function takes(module, uses)
  return (is(module, conv.Conv2d) or is(module, linear.Linear)) and (uses[module] or 1) == 1
end

-- The lists of names that a module has all of.
local function fuse_named(model, names, uses)
  for n, keys in ipairs(names) do
    local found = false
    check.type(where, ("names[%d]"):format(n), keys, "table")
    for _, parent in ipairs(model:modules()) do
      local all = #keys > 1
      for _, key in ipairs(keys) do all = all and Module.is_module(parent[key]) end
      if all and takes(parent[keys[1]], uses) then
        local last = fuse_keys(parent, keys, 1)
        if last < #keys then
          check.fail("%s: '%s' of %s cannot be taken into '%s'; expected a convolution or linear "
            .. "layer, a batch norm with running statistics, an activation without options", where,
            tostring(keys[last + 1]), parent:class_name(), tostring(keys[1]))
        end
        found = true
      end
    end
    if not found then
      check.fail("%s: no module has the fields names[%d], '%s', beginning with a convolution or "
        .. "linear layer that is used once", where, n, table.concat(keys, "', '"))
    end
  end
end

--- For inference: takes into every nn.Conv2d and nn.Linear the batch norm and the activation
--- that follow it, as one pass over memory instead of three. nn.Sequential says itself what
--- follows; of other modules say it by the names of their fields, as {{"conv1", "norm1"},
--- {"conv2", "norm2", "relu"}}: these are looked for in every module of the model. What was
--- taken in is replaced by nn.Identity. Changes the model itself, which is to be in evaluation
--- mode; its numbers stay the same but for rounding. Before prepack.
---@param model nyx.nn.Module
---@param names? string[][]
---@return nyx.nn.Module model
local function fuse(model, names)
  if not Module.is_module(model) then
    check.fail("%s: 'model' is %s, expected a module", where, check.describe(model))
  end
  for _, module in ipairs(model:modules()) do
    if module.training then
      check.fail("%s: %s is in training mode, where batch norm depends on the batch; call "
        .. "model:eval() before", where, module:class_name())
    end
  end
  local uses = count_uses(model)
  for _, parent in ipairs(model:modules()) do
    if is(parent, container.Sequential) then
      local keys = {}
      for i = 1, #parent do keys[i] = i end
      for i = 1, #parent do
        if takes(parent[i], uses) then fuse_keys(parent, keys, i) end
      end
    end
  end
  fuse_named(model, check.type(where, "names", names or {}, "table"), uses)
  return model
end

return fuse
