-- amp.GradScaler: scales the loss so that small gradients survive float16, and finds the
-- scale by itself: down when gradients overflow, up when they have not for a while.
local class = require "nyx.class"
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

local LARGEST = 2 ^ 127 * (2 - 2 ^ -23) -- the greatest float32
local SMALLEST = 2 ^ -126 -- whose inverse is a float32, too

--- Micikevicius et al.: "Mixed Precision Training", 2018. The numbers are PyTorch's.
---
---     local scaler = nyx.amp.GradScaler()
---     local loss = nyx.autocast({ dtype = "float16" }, function()
---       return criterion(model(x), y)
---     end)
---     scaler:scale(loss):backward()
---     scaler:step(optimizer)       -- left out when a gradient is inf or nan
---     scaler:update()
---@class nyx.amp.GradScaler
local GradScaler = class("GradScaler")
M.GradScaler = GradScaler

-- Where an optimiser is between two updates; an entry has {stage, found, checked}.
local READY, UNSCALED, STEPPED = "ready", "unscaled", "stepped"

local function fail(method, message, ...)
  check.fail("amp.GradScaler: " .. method .. ": " .. message, ...)
end

local function positive(name, value, above)
  if type(value) ~= "number" or not (value > above and value < math.huge) then
    check.fail("amp.GradScaler: '%s' is %s, expected a number greater than %g", name,
      check.describe(value), above)
  end
  return value
end

local function factor(value)
  if type(value) ~= "number" or not (value > 0 and value < 1) then
    check.fail("amp.GradScaler: 'backoff_factor' is %s, expected a number between 0 and 1",
      check.describe(value))
  end
  return value
end

---@param options? {init_scale: number, growth_factor: number, backoff_factor: number,
---  growth_interval: integer, enabled: boolean} 65536, 2, 0.5, 2000, true
function GradScaler:init(options)
  options = check.options("amp.GradScaler", options,
    "init_scale growth_factor backoff_factor growth_interval enabled")
  self.enabled = options.enabled ~= false
  self.scale_now = positive("init_scale", options.init_scale or 65536, 0)
  self.growth_factor = positive("growth_factor", options.growth_factor or 2, 1)
  self.backoff_factor = factor(options.backoff_factor or 0.5)
  self.growth_interval = check.integer("amp.GradScaler", "growth_interval",
    options.growth_interval or 2000)
  self.growth_tracker = 0
  self.optimizers = {}
end

--- The loss (or a table of losses) times the scale.
---@param loss nyx.Tensor|table<any, nyx.Tensor>
---@return nyx.Tensor|table<any, nyx.Tensor>
function GradScaler:scale(loss)
  if type(loss) == "table" and not getmetatable(loss) then
    local scaled = {}
    for key, value in pairs(loss) do scaled[key] = self:scale(value) end
    return scaled
  end
  check.tensor("amp.GradScaler: scale", "loss", loss)
  return self.enabled and loss * self.scale_now or loss
end

local function entry_of(self, method, optimizer)
  if type(optimizer) ~= "table" or type(optimizer.param_groups) ~= "table" then
    fail(method, "'optimizer' is %s, expected an optimiser such as optim.SGD",
      check.describe(optimizer))
  end
  local entry = self.optimizers[optimizer]
  if not entry then
    entry = { stage = READY, found = false, checked = false }
    self.optimizers[optimizer] = entry
  end
  return entry
end

local function gradients_of(optimizer)
  local grads = {}
  for _, group in ipairs(optimizer.param_groups) do
    for _, parameter in ipairs(group.params) do grads[#grads + 1] = parameter.grad end
  end
  return grads
end

-- Divides all gradients by the scale and says whether one is not finite.
local function unscale(self, grads)
  local inverse, finite = 1 / self.scale_now, {}
  for i, grad in ipairs(grads) do
    finite[i] = grad:isfinite():all()
    grad:mul_(inverse)
  end
  return not nyx.stack(finite):all():item()
end

--- Divides the gradients of an optimiser by the scale now, for clipping and the like before
--- `step`, which does it otherwise.
---@param optimizer nyx.optim.Optimizer
function GradScaler:unscale_(optimizer)
  if not self.enabled then return end
  local entry = entry_of(self, "unscale_", optimizer)
  if entry.stage == UNSCALED then
    fail("unscale_", "called a second time on this optimiser since the last update()")
  elseif entry.stage == STEPPED then
    fail("unscale_", "called after step(); expected before it, once between two update()s")
  end
  local grads = gradients_of(optimizer)
  for _, grad in ipairs(grads) do
    if grad.dtype == "float16" then
      fail("unscale_", "a gradient is float16; keep parameters in float32 and run the model "
        .. "inside nyx.autocast")
    end
  end
  if #grads > 0 then
    entry.found = nyx.scope(nyx.no_grad, unscale, self, grads)
    entry.checked = true
  end
  entry.stage = UNSCALED
end

--- optimizer:step(...), unless a gradient is inf or nan. Unscales the gradients before.
---@param optimizer nyx.optim.Optimizer
---@param ... any for the optimiser's step; closures are not supported
---@return any ... what the optimiser's step gives; nothing when it was left out
function GradScaler:step(optimizer, ...)
  if not self.enabled then return optimizer:step(...) end
  local entry = entry_of(self, "step", optimizer)
  if (...) ~= nil then
    fail("step", "closures are not supported: the gradients must be there already")
  end
  if entry.stage == STEPPED then
    fail("step", "called a second time since the last update()")
  end
  if entry.stage == READY then self:unscale_(optimizer) end
  if not entry.checked then
    fail("step", "the optimiser has no gradients; call scale(loss):backward() first")
  end
  entry.stage = STEPPED
  if not entry.found then return optimizer:step() end
end

--- Changes the scale after the steps of an iteration: smaller when one was left out, larger
--- after `growth_interval` good iterations.
---@param scale? number the scale from now on, instead
function GradScaler:update(scale)
  if not self.enabled then return end
  if scale ~= nil then
    if nyx.is_tensor(scale) then scale = scale:item() end
    self.scale_now = positive("scale", scale, 0)
  else
    local checked, found = false, false
    for _, entry in pairs(self.optimizers) do
      checked, found = checked or entry.checked, found or entry.found
    end
    if not checked then
      fail("update", "no gradients were looked at since the last one; call step(optimizer) first")
    end
    if found then
      self.scale_now = math.max(self.scale_now * self.backoff_factor, SMALLEST)
      self.growth_tracker = 0
    else
      self.growth_tracker = self.growth_tracker + 1
      if self.growth_tracker == self.growth_interval then
        local grown = self.scale_now * self.growth_factor
        if grown <= LARGEST then self.scale_now = grown end
        self.growth_tracker = 0
      end
    end
  end
  self.optimizers = {}
end

--- The scale; 1 when disabled.
---@return number
function GradScaler:get_scale()
  return self.enabled and self.scale_now or 1
end

---@return boolean
function GradScaler:is_enabled()
  return self.enabled
end

--- The state as a plain table, for nyx.save; empty when disabled.
---@return table
function GradScaler:state_dict()
  if not self.enabled then return {} end
  return { scale = self.scale_now, growth_factor = self.growth_factor,
    backoff_factor = self.backoff_factor, growth_interval = self.growth_interval,
    growth_tracker = self.growth_tracker }
end

--- Takes over a state that state_dict gave. When something is wrong, nothing is changed.
---@param state table
function GradScaler:load_state_dict(state)
  if not self.enabled then return end
  local where = "amp.GradScaler: load_state_dict"
  check.type(where, "state", state, "table")
  if next(state) == nil then
    fail("load_state_dict", "the state is empty: it was saved by a scaler that was disabled")
  end
  local scale = positive("scale", state.scale, 0)
  local growth, backoff = positive("growth_factor", state.growth_factor, 1),
    factor(state.backoff_factor)
  local interval = check.integer(where, "growth_interval", state.growth_interval)
  local tracker = check.integer(where, "growth_tracker", state.growth_tracker, 0)
  self.scale_now, self.growth_factor, self.backoff_factor = scale, growth, backoff
  self.growth_interval, self.growth_tracker = interval, tracker
end

return M
