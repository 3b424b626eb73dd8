-- nn.QuantizedLinear: a linear layer whose weight is a fixed one of few bits.
local class = require "nyx.class"
local check = require "nyx.check"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

--- y = x W^T + b over the last dimension, W of 4 or 8 bits: an eighth or a quarter of the
--- memory of nn.Linear, and of its time for a single row. W is not trained; gradients reach x
--- and the bias. Starts as zeros: see QuantizedLinear.from_linear and load_state_dict.
---@class nyx.nn.QuantizedLinear: nyx.nn.Module
local QuantizedLinear = class("QuantizedLinear", Module)
M.QuantizedLinear = QuantizedLinear

--- Options: bias, bits (4; or 8), group (32: as many features share a scale), symmetric (true:
--- no zero points), dtype (of scales and bias), activation (as of nn.Linear).
---@param in_features integer
---@param out_features integer
---@param options? table
function QuantizedLinear:init(in_features, out_features, options)
  options = check.options("nn.QuantizedLinear", options,
    "bias bits group symmetric dtype activation")
  local activation = options.activation
  if activation ~= nil and type(nyx[check.type("nn.QuantizedLinear", "activation", activation,
      "string")]) ~= "function" then
    check.fail("nn.QuantizedLinear: 'activation' is \"%s\", expected an op's name, as relu or gelu",
      activation)
  end
  self.activation = activation
  self.in_features = check.integer("nn.QuantizedLinear", "in_features", in_features)
  self.out_features = check.integer("nn.QuantizedLinear", "out_features", out_features)
  self.bits = check.integer("nn.QuantizedLinear", "bits", options.bits or 4)
  self.group = check.integer("nn.QuantizedLinear", "group", options.group or 32)
  self.symmetric = options.symmetric ~= false
  self:pack(nyx.zeros({ out_features, in_features }), options.dtype)
  if options.bias ~= false then
    self.bias = Module.Parameter(nyx.zeros({ out_features }, { dtype = options.dtype }))
  end
end

--- Takes over a float weight (outputs, features).
---@param weight nyx.Tensor
---@param dtype? string of the scales
function QuantizedLinear:pack(weight, dtype)
  local packed, scales, zeros = nyx.quantize_weight(weight, { bits = self.bits,
    group = self.group, symmetric = self.symmetric, dtype = dtype })
  self:register_buffer("packed", packed)
  self:register_buffer("scales", scales)
  if zeros then self:register_buffer("zeros", zeros) end
end

--- The layer that computes nearly what `linear` does.
---@param linear nyx.nn.Linear
---@param options? {bits: integer, group: integer, symmetric: boolean, dtype: string}
---@return nyx.nn.QuantizedLinear
function QuantizedLinear.from_linear(linear, options)
  local where = "nn.QuantizedLinear.from_linear"
  if not Module.is_module(linear) or linear:class_name() ~= "Linear" then
    check.fail("%s: the argument is %s, expected an nn.Linear", where, check.describe(linear))
  end
  local own = {}
  for key, value in pairs(check.options(where, options, "bits group symmetric dtype")) do
    own[key] = value
  end
  own.bias = linear.bias ~= nil
  own.activation = linear.activation
  local layer = QuantizedLinear(linear.in_features, linear.out_features, own)
  layer:pack(linear.weight, own.dtype)
  if linear.bias then
    layer.bias = Module.Parameter(linear.bias:detach():to(own.dtype or linear.bias.dtype):clone())
  end
  return layer
end

--- layer(x, residual) adds the residual after the activation, as nn.Linear does.
---@param x nyx.Tensor
---@param residual? nyx.Tensor
function QuantizedLinear:forward(x, residual)
  local y = nyx.linear_quantized(x, self.packed, self.scales, self.zeros, self.bias)
  if self.activation then y = nyx[self.activation](y) end
  return residual and y + residual or y
end

function QuantizedLinear:extra_repr()
  return ("in_features=%d, out_features=%d, bits=%d, group=%d, bias=%s%s"):format(
    self.in_features, self.out_features, self.bits, self.group, tostring(self.bias ~= nil),
    self.activation and ", activation=" .. self.activation or "")
end

return M
