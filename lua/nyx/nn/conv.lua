-- nn.Conv2d and the pooling layers: windows that slide over (batch, channels, height, width).
local class = require "nyx.class"
local check = require "nyx.check"
local initial = require "nyx.nn.initial"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

-- A size for both directions, {3, 3}, from 3 or {3, 3}.
local function pair(where, name, value, low)
  if type(value) == "table" then
    check.integer(where, name .. "[1]", value[1], low)
    check.integer(where, name .. "[2]", value[2], low)
    return { value[1], value[2] }
  end
  check.integer(where, name, value, low)
  return { value, value }
end

local function pair_text(value)
  return value[1] == value[2] and tostring(value[1]) or ("{%d, %d}"):format(value[1], value[2])
end

--- Convolution with weights of shape (out, in / groups, height, width), and then, in the same
--- pass, an activation. Sizes are numbers or {height, width}.
---@class nyx.nn.Conv2d: nyx.nn.Module
local Conv2d = class("Conv2d", Module)
M.Conv2d = Conv2d

---@param in_channels integer
---@param out_channels integer
---@param kernel_size integer|integer[]
---@param options? table stride, padding, dilation, groups, bias, dtype; activation: the name of
---  an elementwise op, as "relu" or "silu"; none when left out
function Conv2d:init(in_channels, out_channels, kernel_size, options)
  local where = "nn.Conv2d"
  options = check.options(where, options, "stride padding dilation groups bias dtype activation")
  if options.activation ~= nil then
    self.activation = check.type(where, "activation", options.activation, "string")
  end
  self.in_channels = check.integer(where, "in_channels", in_channels)
  self.out_channels = check.integer(where, "out_channels", out_channels)
  self.kernel_size = pair(where, "kernel_size", kernel_size)
  self.groups = check.integer(where, "groups", options.groups or 1)
  -- Handed to the op as they are.
  self.options = {
    stride = pair(where, "stride", options.stride or 1),
    padding = pair(where, "padding", options.padding or 0, 0),
    dilation = pair(where, "dilation", options.dilation or 1),
    groups = self.groups,
  }
  if in_channels % self.groups ~= 0 or out_channels % self.groups ~= 0 then
    check.fail("%s: %d groups do not divide %d input and %d output channels", where,
      self.groups, in_channels, out_channels)
  end
  local kernel, dtype = self.kernel_size, { dtype = options.dtype }
  local fan_in = in_channels / self.groups * kernel[1] * kernel[2]
  local bound = 1 / math.sqrt(fan_in)
  self.weight = Module.Parameter(nyx.empty(
    { out_channels, math.floor(in_channels / self.groups), kernel[1], kernel[2] }, dtype))
  initial.uniform_(self.weight, -bound, bound)
  if options.bias ~= false then
    self.bias = Module.Parameter(nyx.empty({ out_channels }, dtype))
    initial.uniform_(self.bias, -bound, bound)
  end
end

--- layer(x, residual) adds the residual, of the result's shape, before the activation.
---@param x nyx.Tensor
---@param residual? nyx.Tensor
function Conv2d:forward(x, residual)
  local activation, weight, bias, options = self.activation, self.weight, self.bias, self.options
  if not activation and not residual then return x:conv2d(weight, bias, options) end
  local trained = x.requires_grad or weight.requires_grad or bias and bias.requires_grad
    or residual and residual.requires_grad
  local y = x:conv2d_activation(weight, bias, residual, options.stride, options.padding,
    options.dilation, options.groups, activation, trained and nyx.is_grad_enabled() or false)
  return y
end

function Conv2d:extra_repr()
  local text = ("%d, %d, kernel_size=%s"):format(self.in_channels, self.out_channels,
    pair_text(self.kernel_size))
  for _, name in ipairs { "stride", "padding", "dilation" } do
    local value, usual = self.options[name], name == "padding" and 0 or 1
    if value[1] ~= usual or value[2] ~= usual then
      text = ("%s, %s=%s"):format(text, name, pair_text(value))
    end
  end
  if self.groups ~= 1 then text = ("%s, groups=%d"):format(text, self.groups) end
  if self.bias == nil then text = text .. ", bias=false" end
  return text .. (self.activation and ", activation=" .. self.activation or "")
end

-- A pooling layer named `name` that calls the method `method`; `known` are its options.
local function pooling(name, method, known)
  local Pool = class(name, Module)

  function Pool:init(kernel_size, options)
    local where = "nn." .. name
    options = check.options(where, options, known)
    self.kernel_size = pair(where, "kernel_size", kernel_size)
    self.options = {
      stride = pair(where, "stride", options.stride or self.kernel_size),
      padding = pair(where, "padding", options.padding or 0, 0),
    }
    for option in known:gmatch("%S+") do
      if self.options[option] == nil then self.options[option] = options[option] end
    end
  end

  function Pool:forward(x)
    return x[method](x, self.kernel_size, self.options)
  end

  function Pool:extra_repr()
    return ("kernel_size=%s, stride=%s, padding=%s"):format(pair_text(self.kernel_size),
      pair_text(self.options.stride), pair_text(self.options.padding))
  end

  return Pool
end

--- The largest of each window: MaxPool2d(kernel_size, {stride, padding, dilation,
--- ceil_mode}); the stride is the window's size unless given.
---@class nyx.nn.MaxPool2d: nyx.nn.Module
M.MaxPool2d = pooling("MaxPool2d", "max_pool2d", "stride padding dilation ceil_mode")

--- The mean of each window: AvgPool2d(kernel_size, {stride, padding, ceil_mode,
--- count_include_pad}).
---@class nyx.nn.AvgPool2d: nyx.nn.Module
M.AvgPool2d = pooling("AvgPool2d", "avg_pool2d", "stride padding ceil_mode count_include_pad")

return M
