-- Learning-rate schedules: step() once per epoch changes `lr` of every group. Closed forms
-- of the epoch, so that a schedule can be resumed at any epoch.
local class = require "nyx.class"
local check = require "nyx.check"

local M = {}

--- The base: a schedule defines factor(epoch), which multiplies the starting rate, or
--- rate(base, epoch).
---@class nyx.optim.Schedule
---@field last_epoch integer
local Schedule = class("Schedule")
M.Schedule = Schedule

function Schedule:setup(where, optimizer)
  if type(optimizer) ~= "table" or type(optimizer.param_groups) ~= "table" then
    check.fail("%s: 'optimizer' is %s, expected an optimiser such as nyx.optim.SGD(...)", where,
      check.describe(optimizer))
  end
  self.where, self.optimizer, self.last_epoch = where, optimizer, 0
  for _, group in ipairs(optimizer.param_groups) do
    group.initial_lr = group.initial_lr or group.lr
  end
  self:apply()
end

function Schedule:apply()
  for _, group in ipairs(self.optimizer.param_groups) do
    group.lr = self:rate(group.initial_lr, self.last_epoch)
  end
end

--- Goes on to the next epoch.
function Schedule:step()
  self.last_epoch = self.last_epoch + 1
  self:apply()
end

--- The rates in use, one for each group.
---@return number[]
function Schedule:get_last_lr()
  local rates = {}
  for i, group in ipairs(self.optimizer.param_groups) do rates[i] = group.lr end
  return rates
end

---@return {last_epoch: integer}
function Schedule:state_dict() return { last_epoch = self.last_epoch } end

---@param state {last_epoch: integer}
function Schedule:load_state_dict(state)
  self.last_epoch = check.integer(self.where, "last_epoch", state.last_epoch, 0)
  self:apply()
end

--- Multiplies by gamma (0.1) every step_size epochs.
---@class nyx.optim.StepLR: nyx.optim.Schedule
local StepLR = class("StepLR", Schedule)
M.StepLR = StepLR

---@param optimizer nyx.optim.Optimizer
---@param options {step_size: integer, gamma: number}
function StepLR:init(optimizer, options)
  options = check.options("optim.StepLR", options, "step_size gamma")
  self.step_size = check.integer("optim.StepLR", "step_size", options.step_size)
  self.gamma = check.number("optim.StepLR", "gamma", options.gamma or 0.1, 0)
  self:setup("optim.StepLR", optimizer)
end

function StepLR:rate(base, epoch)
  return base * self.gamma ^ math.floor(epoch / self.step_size)
end

--- Multiplies by gamma every epoch.
---@class nyx.optim.ExponentialLR: nyx.optim.Schedule
local ExponentialLR = class("ExponentialLR", Schedule)
M.ExponentialLR = ExponentialLR

---@param optimizer nyx.optim.Optimizer
---@param options {gamma: number}
function ExponentialLR:init(optimizer, options)
  options = check.options("optim.ExponentialLR", options, "gamma")
  self.gamma = check.number("optim.ExponentialLR", "gamma", options.gamma, 0)
  self:setup("optim.ExponentialLR", optimizer)
end

function ExponentialLR:rate(base, epoch)
  return base * self.gamma ^ epoch
end

--- Half a cosine from the starting rate to eta_min (0) in T_max epochs (Loshchilov and
--- Hutter 2017), and back up after that.
---@class nyx.optim.CosineAnnealingLR: nyx.optim.Schedule
local CosineAnnealingLR = class("CosineAnnealingLR", Schedule)
M.CosineAnnealingLR = CosineAnnealingLR

---@param optimizer nyx.optim.Optimizer
---@param options {T_max: integer, eta_min: number}
function CosineAnnealingLR:init(optimizer, options)
  options = check.options("optim.CosineAnnealingLR", options, "T_max eta_min")
  self.T_max = check.integer("optim.CosineAnnealingLR", "T_max", options.T_max)
  self.eta_min = check.number("optim.CosineAnnealingLR", "eta_min", options.eta_min or 0, 0)
  self:setup("optim.CosineAnnealingLR", optimizer)
end

function CosineAnnealingLR:rate(base, epoch)
  return self.eta_min + (base - self.eta_min) * (1 + math.cos(math.pi * epoch / self.T_max)) / 2
end

return M
