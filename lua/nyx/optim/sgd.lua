-- optim.SGD and optim.RMSprop: gradient descent with momentum, and with a running scale.
local class = require "nyx.class"
local check = require "nyx.check"
local Optimizer = require "nyx.optim.optimizer"
local nyx = require "nyx"

local M = {}

--- Stochastic gradient descent: with momentum, v = momentum v + (1 - dampening) g and
--- p = p - lr v; with nesterov, p = p - lr (g + momentum v).
---@class nyx.optim.SGD: nyx.optim.Optimizer
local SGD = class("SGD", Optimizer)
M.SGD = SGD
SGD.scales_gradients = true

local sgd_settings = "lr momentum dampening weight_decay nesterov maximize"

---@param params table
---@param options? table lr, momentum, dampening, weight_decay, nesterov, maximize, max_grad_norm
function SGD:init(params, options)
  self:setup("optim.SGD", params, options, {
    lr = 1e-3, momentum = 0, dampening = 0, weight_decay = 0, nesterov = false,
    maximize = false,
  }, sgd_settings)
end

function SGD:check_group(group)
  Optimizer.check_group(self, group)
  check.number(self.where, "momentum", group.momentum, 0)
  check.number(self.where, "dampening", group.dampening)
  if group.nesterov and (group.momentum == 0 or group.dampening ~= 0) then
    check.fail("%s: nesterov needs a momentum above 0 and no dampening", self.where)
  end
end

function SGD:update(group, parameter, grad, state)
  local buffer, dampening = state.momentum_buffer, group.dampening
  if not buffer and group.momentum ~= 0 then
    -- The first velocity is the gradient itself, whatever the dampening.
    buffer, dampening = nyx.zeros_like(parameter), 0
    state.momentum_buffer = buffer
  end
  parameter:sgd_step_(grad, buffer, group.lr, group.weight_decay, group.maximize,
    self.grad_scale, group.momentum, dampening, group.nesterov)
end

--- Divides the gradient by a running root mean square (Hinton 2012); centered subtracts
--- the square of the running mean first.
---@class nyx.optim.RMSprop: nyx.optim.Optimizer
local RMSprop = class("RMSprop", Optimizer)
M.RMSprop = RMSprop
RMSprop.scales_gradients = true

local rms_settings = "lr alpha eps weight_decay momentum centered maximize"

---@param params table
---@param options? table lr, alpha, eps, weight_decay, momentum, centered, maximize,
--- max_grad_norm
function RMSprop:init(params, options)
  self:setup("optim.RMSprop", params, options, {
    lr = 1e-2, alpha = 0.99, eps = 1e-8, weight_decay = 0, momentum = 0, centered = false,
    maximize = false,
  }, rms_settings)
end

function RMSprop:check_group(group)
  Optimizer.check_group(self, group)
  check.number(self.where, "alpha", group.alpha, 0, 1)
  check.number(self.where, "eps", group.eps, 0)
  check.number(self.where, "momentum", group.momentum, 0)
end

function RMSprop:update(group, parameter, grad, state)
  if not state.square_avg then
    if group.momentum > 0 then state.momentum_buffer = nyx.zeros_like(parameter) end
    if group.centered then state.grad_avg = nyx.zeros_like(parameter) end
    state.square_avg = nyx.zeros_like(parameter) -- last: now the state is complete
  end
  parameter:rmsprop_step_(grad, state.square_avg, state.momentum_buffer, state.grad_avg,
    group.lr, group.weight_decay, group.maximize, self.grad_scale, group.alpha, group.eps,
    group.momentum)
end

return M
