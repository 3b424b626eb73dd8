-- Activations as layers. One row each: the class, the op it applies, the op's attributes in
-- the order the constructor takes them, with their defaults.
local class = require "nyx.class"
local check = require "nyx.check"
local Module = require "nyx.nn.module"

local rows = {
  { "ReLU", "relu" },
  { "ReLU6", "relu6" },
  { "LeakyReLU", "leaky_relu", { "negative_slope", 0.01 } },
  { "ELU", "elu", { "alpha", 1 } },
  { "SELU", "selu" },
  { "SiLU", "silu" },
  { "Mish", "mish" },
  { "Softplus", "softplus", { "beta", 1 }, { "threshold", 20 } },
  { "Sigmoid", "sigmoid" },
  { "Tanh", "tanh" },
  { "Hardtanh", "hardtanh", { "min_val", -1 }, { "max_val", 1 } },
  { "Hardswish", "hardswish" },
  { "Softmax", "softmax", { "dim", -1 }, rows = true },
  { "LogSoftmax", "log_softmax", { "dim", -1 }, rows = true },
}

local M = {}

for _, row in ipairs(rows) do
  local name, op = row[1], row[2]
  local Activation = class(name, Module)
  M[name] = Activation

  function Activation:init(...)
    local options
    for i = 3, #row do
      local attribute, preset = row[i][1], row[i][2]
      local value = select(i - 2, ...)
      if value == nil then value = preset end
      check.type("nn." .. name, attribute, value, type(preset))
      options = options or {}
      options[attribute] = value
    end
    self.options = options
  end

  function Activation:forward(x)
    return x[op](x, self.options)
  end

  --- What nn.Linear and nn.Conv2d call it as their `activation`; nil: it has none, as an op of
  --- whole rows, or with options of its own.
  ---@return string?
  function Activation:op_name()
    if row.rows then return nil end
    for i = 3, #row do
      if self.options[row[i][1]] ~= row[i][2] then return nil end
    end
    return op
  end

  function Activation:extra_repr()
    local text = {}
    for i = 3, #row do
      text[#text + 1] = ("%s=%s"):format(row[i][1], tostring(self.options[row[i][1]]))
    end
    return table.concat(text, ", ")
  end
end

--- x Phi(x) (Hendrycks and Gimpel 2016); GELU("tanh") is the older approximation.
---@class nyx.nn.GELU: nyx.nn.Module
local GELU = class("GELU", Module)
M.GELU = GELU

---@param approximate? string "none" (the default) or "tanh"
function GELU:init(approximate)
  self.approximate = check.choice("nn.GELU", "approximate", approximate or "none", "none tanh")
end

function GELU:forward(x)
  return self.approximate == "tanh" and x:gelu_tanh() or x:gelu()
end

function GELU:extra_repr()
  return "approximate=" .. self.approximate
end

--- As of the others.
---@return string
function GELU:op_name()
  return self.approximate == "tanh" and "gelu_tanh" or "gelu"
end

return M
