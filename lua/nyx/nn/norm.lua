-- Normalisation layers and dropout.
local class = require "nyx.class"
local check = require "nyx.check"
local checkpoint = require "nyx.checkpoint"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

-- Batch normalisation (Ioffe and Szegedy 2015) of channels, dimension 2, for inputs of the
-- given numbers of dimensions.
local function batch_norm(name, ndims)
  local BatchNorm = class(name, Module)
  local where = "nn." .. name

  function BatchNorm:init(num_features, options)
    options = check.options(where, options, "eps momentum affine track_running_stats dtype")
    self.num_features = check.integer(where, "num_features", num_features)
    self.eps = check.number(where, "eps", options.eps or 1e-5, 0)
    self.momentum = check.number(where, "momentum", options.momentum or 0.1, 0, 1)
    local dtype = { dtype = options.dtype }
    if options.affine ~= false then
      self.weight = Module.Parameter(nyx.ones({ num_features }, dtype))
      self.bias = Module.Parameter(nyx.zeros({ num_features }, dtype))
    end
    if options.track_running_stats ~= false then
      self:register_buffer("running_mean", nyx.zeros({ num_features }, dtype))
      self:register_buffer("running_var", nyx.ones({ num_features }, dtype))
      self:register_buffer("num_batches_tracked", nyx.zeros({}, { dtype = "int64" }))
    end
  end

  function BatchNorm:forward(x)
    local ndim = x:dim()
    if not ndims[ndim] then
      check.fail("%s: the input has shape (%s), expected (batch, channels%s)", where,
        table.concat(x.shape, "x"), ndims[4] and ", height, width" or " [, length]")
    end
    local mean, var = self.running_mean, self.running_var
    if self.training and checkpoint.recomputing() then
      mean, var = nil, nil -- the first run has updated them
    elseif self.training and self.num_batches_tracked then
      nyx.no_grad(function() self.num_batches_tracked:add_(1) end)
    end
    return x:batch_norm(self.weight, self.bias, mean, var, self.training or mean == nil,
      self.momentum, self.eps)
  end

  function BatchNorm:extra_repr()
    return ("%d, eps=%g, momentum=%g, affine=%s, track_running_stats=%s"):format(
      self.num_features, self.eps, self.momentum, tostring(self.weight ~= nil),
      tostring(self.running_mean ~= nil))
  end

  return BatchNorm
end

--- For (batch, channels) and (batch, channels, length).
---@class nyx.nn.BatchNorm1d: nyx.nn.Module
M.BatchNorm1d = batch_norm("BatchNorm1d", { [2] = true, [3] = true })

--- For (batch, channels, height, width).
---@class nyx.nn.BatchNorm2d: nyx.nn.Module
M.BatchNorm2d = batch_norm("BatchNorm2d", { [4] = true })

-- The trailing shape a layer normalises: 64 or {8, 8}.
local function trailing(where, value)
  if type(value) ~= "table" then value = { value } end
  local shape = {}
  for i = 1, #value do
    shape[i] = check.integer(where, ("normalized_shape[%d]"):format(i), value[i])
  end
  if #shape == 0 then check.fail("%s: 'normalized_shape' is empty", where) end
  return shape
end

--- Normalises over the trailing dimensions (Ba, Kiros and Hinton 2016).
---@class nyx.nn.LayerNorm: nyx.nn.Module
local LayerNorm = class("LayerNorm", Module)
M.LayerNorm = LayerNorm

---@param normalized_shape integer|integer[]
---@param options? {eps: number, elementwise_affine: boolean, bias: boolean, dtype: string}
function LayerNorm:init(normalized_shape, options)
  options = check.options("nn.LayerNorm", options, "eps elementwise_affine bias dtype")
  self.normalized_shape = trailing("nn.LayerNorm", normalized_shape)
  self.eps = check.number("nn.LayerNorm", "eps", options.eps or 1e-5, 0)
  if options.elementwise_affine ~= false then
    local dtype = { dtype = options.dtype }
    self.weight = Module.Parameter(nyx.ones(self.normalized_shape, dtype))
    if options.bias ~= false then
      self.bias = Module.Parameter(nyx.zeros(self.normalized_shape, dtype))
    end
  end
end

function LayerNorm:forward(x)
  return x:layer_norm(self.weight, self.bias, self.normalized_shape, self.eps)
end

function LayerNorm:extra_repr()
  return ("{%s}, eps=%g, elementwise_affine=%s"):format(
    table.concat(self.normalized_shape, ", "), self.eps, tostring(self.weight ~= nil))
end

--- Divides by the root mean square over the trailing dimensions (Zhang and Sennrich 2019).
---@class nyx.nn.RMSNorm: nyx.nn.Module
local RMSNorm = class("RMSNorm", Module)
M.RMSNorm = RMSNorm

---@param normalized_shape integer|integer[]
---@param options? {eps: number, elementwise_affine: boolean, dtype: string}
function RMSNorm:init(normalized_shape, options)
  options = check.options("nn.RMSNorm", options, "eps elementwise_affine dtype")
  self.normalized_shape = trailing("nn.RMSNorm", normalized_shape)
  self.eps = check.number("nn.RMSNorm", "eps", options.eps or 2 ^ -23, 0)
  if options.elementwise_affine ~= false then
    self.weight = Module.Parameter(nyx.ones(self.normalized_shape, { dtype = options.dtype }))
  end
end

function RMSNorm:forward(x)
  return x:rms_norm(self.weight, self.normalized_shape, self.eps)
end

function RMSNorm:extra_repr()
  return ("{%s}, eps=%g, elementwise_affine=%s"):format(
    table.concat(self.normalized_shape, ", "), self.eps, tostring(self.weight ~= nil))
end

--- Normalises each sample's channels in groups (Wu and He 2018). The input has shape (batch,
--- channels, ...); with as many groups as channels it is instance norm.
---@class nyx.nn.GroupNorm: nyx.nn.Module
local GroupNorm = class("GroupNorm", Module)
M.GroupNorm = GroupNorm

---@param num_groups integer divides num_channels
---@param num_channels integer
---@param options? {eps: number, affine: boolean, dtype: string}
function GroupNorm:init(num_groups, num_channels, options)
  options = check.options("nn.GroupNorm", options, "eps affine dtype")
  self.num_groups = check.integer("nn.GroupNorm", "num_groups", num_groups)
  self.num_channels = check.integer("nn.GroupNorm", "num_channels", num_channels)
  self.eps = check.number("nn.GroupNorm", "eps", options.eps or 1e-5, 0)
  if num_channels % num_groups ~= 0 then
    check.fail("nn.GroupNorm: num_groups = %d, expected a divisor of the %d channels", num_groups,
      num_channels)
  end
  if options.affine ~= false then
    local dtype = { dtype = options.dtype }
    self.weight = Module.Parameter(nyx.ones({ num_channels }, dtype))
    self.bias = Module.Parameter(nyx.zeros({ num_channels }, dtype))
  end
end

function GroupNorm:forward(x)
  if x:dim() < 2 or x.shape[2] ~= self.num_channels then
    check.fail("nn.GroupNorm: the input has shape (%s), expected (batch, %d) or (batch, %d, ...)",
      table.concat(x.shape, "x"), self.num_channels, self.num_channels)
  end
  return x:group_norm(self.weight, self.bias, self.num_groups, self.eps)
end

function GroupNorm:extra_repr()
  return ("%d, %d, eps=%g, affine=%s"):format(self.num_groups, self.num_channels, self.eps,
    tostring(self.weight ~= nil))
end

--- In training, zeroes each element with probability p and scales the others by 1 / (1-p).
---@class nyx.nn.Dropout: nyx.nn.Module
local Dropout = class("Dropout", Module)
M.Dropout = Dropout

---@param p? number default 0.5
function Dropout:init(p)
  self.p = check.number("nn.Dropout", "p", p or 0.5, 0, 1)
end

function Dropout:forward(x)
  if not self.training or self.p == 0 then return x end
  return x:dropout(self.p)
end

function Dropout:extra_repr()
  return ("p=%g"):format(self.p)
end

return M
