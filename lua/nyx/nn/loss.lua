-- Losses: modules called as criterion(input, target). `reduction` is "mean" (the default),
-- "sum" or "none".
local class = require "nyx.class"
local check = require "nyx.check"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = {}

-- Defines a loss: `known` names its options besides reduction, `compute(self, input,
-- target)` gives the loss of every element, or the reduced one when `reduces` is set.
local function define(name, known, presets, compute, reduces)
  local Loss = class(name, Module)
  M[name] = Loss
  local where = "nn." .. name

  function Loss:init(options)
    options = check.options(where, options, "reduction " .. known)
    self.reduction = check.choice(where, "reduction", options.reduction or "mean",
      presets.batchmean and "mean sum none batchmean" or "mean sum none")
    for option in known:gmatch("%S+") do
      local value = options[option]
      if value == nil then value = presets[option] end
      if presets[option] ~= nil then check.type(where, option, value, type(presets[option])) end
      if nyx.is_tensor(value) then
        self:register_buffer(option, value)
      else
        self[option] = value
      end
    end
  end

  function Loss:forward(input, target)
    check.tensor(where, "input", input)
    check.tensor(where, "target", target)
    local loss = compute(self, input, target)
    if reduces or self.reduction == "none" then return loss end
    if self.reduction == "sum" then return loss:sum() end
    if self.reduction == "batchmean" then return loss:sum() / input:size(1) end
    return loss:mean()
  end

  function Loss:extra_repr()
    return self.reduction == "mean" and "" or "reduction=" .. self.reduction
  end
end

local function same_shape(where, input, target)
  local a, b = table.concat(input.shape, "x"), table.concat(target.shape, "x")
  if a ~= b then
    check.fail("%s: the input has shape (%s), the target (%s); expected the same shape", where,
      a, b)
  end
end

--- Logits (batch, classes, ...) against labels 1..classes or class probabilities. Options:
--- weight, ignore_index, label_smoothing.
---@class nyx.nn.CrossEntropyLoss: nyx.nn.Module
define("CrossEntropyLoss", "weight ignore_index label_smoothing", {},
  function(self, input, target)
    return input:cross_entropy(target, self.weight, { reduction = self.reduction,
      ignore_index = self.ignore_index, label_smoothing = self.label_smoothing })
  end, true)

--- Log-probabilities (batch, classes, ...) against labels 1..classes.
---@class nyx.nn.NLLLoss: nyx.nn.Module
define("NLLLoss", "weight ignore_index", {}, function(self, input, target)
  return input:nll_loss(target, self.weight, { reduction = self.reduction,
    ignore_index = self.ignore_index })
end, true)

--- (input - target)^2
---@class nyx.nn.MSELoss: nyx.nn.Module
define("MSELoss", "", {}, function(_, input, target)
  same_shape("nn.MSELoss", input, target)
  local difference = input - target
  return difference * difference
end)

--- |input - target|
---@class nyx.nn.L1Loss: nyx.nn.Module
define("L1Loss", "", {}, function(_, input, target)
  same_shape("nn.L1Loss", input, target)
  return (input - target):abs()
end)

--- Quadratic within delta (1) of the target, linear beyond (Huber 1964).
---@class nyx.nn.HuberLoss: nyx.nn.Module
define("HuberLoss", "delta", { delta = 1 }, function(self, input, target)
  same_shape("nn.HuberLoss", input, target)
  check.number("nn.HuberLoss", "delta", self.delta, 1e-300)
  return input:huber(target, self.delta)
end)

--- The Huber loss divided by beta (1); beta = 0 is L1Loss.
---@class nyx.nn.SmoothL1Loss: nyx.nn.Module
define("SmoothL1Loss", "beta", { beta = 1 }, function(self, input, target)
  same_shape("nn.SmoothL1Loss", input, target)
  check.number("nn.SmoothL1Loss", "beta", self.beta, 0)
  return input:smooth_l1(target, self.beta)
end)

--- Probabilities against targets in 0..1; logarithms are not let below -100.
---@class nyx.nn.BCELoss: nyx.nn.Module
define("BCELoss", "weight", {}, function(self, input, target)
  same_shape("nn.BCELoss", input, target)
  local loss = input:binary_cross_entropy(target)
  return self.weight and loss * self.weight or loss
end)

--- Logits against targets in 0..1, stable at any size. Options: weight, pos_weight.
---@class nyx.nn.BCEWithLogitsLoss: nyx.nn.Module
define("BCEWithLogitsLoss", "weight pos_weight", {}, function(self, input, target)
  same_shape("nn.BCEWithLogitsLoss", input, target)
  local loss
  if self.pos_weight then
    loss = (1 - target) * input - (1 + (self.pos_weight - 1) * target) * input:log_sigmoid()
  else
    loss = input:binary_cross_entropy_with_logits(target)
  end
  return self.weight and loss * self.weight or loss
end)

--- Log-probabilities against probabilities (or, with log_target, their logarithms):
--- target (log target - input). "batchmean" divides by the batch, which is the divergence.
---@class nyx.nn.KLDivLoss: nyx.nn.Module
define("KLDivLoss", "log_target", { log_target = false, batchmean = true },
  function(self, input, target)
    same_shape("nn.KLDivLoss", input, target)
    if self.log_target then return target:exp() * (target - input) end
    return target:xlogy(target) - target * input
  end)

return M
