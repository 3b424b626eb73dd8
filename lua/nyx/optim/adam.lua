-- optim.Adam and optim.AdamW: Kingma and Ba 2015, Loshchilov and Hutter 2019.
local class = require "nyx.class"
local check = require "nyx.check"
local Optimizer = require "nyx.optim.optimizer"
local nyx = require "nyx"

local M = {}

local known = "lr betas eps weight_decay amsgrad maximize"

--- Adam: weight decay is added to the gradient.
---@class nyx.optim.Adam: nyx.optim.Optimizer
local Adam = class("Adam", Optimizer)
M.Adam = Adam
Adam.scales_gradients = true

Adam.decoupled = false
Adam.default_decay = 0

---@param params table
---@param options? table lr, betas, eps, weight_decay, amsgrad, maximize, max_grad_norm
function Adam:init(params, options)
  self:setup(self.decoupled and "optim.AdamW" or "optim.Adam", params, options, {
    lr = 1e-3, betas = { 0.9, 0.999 }, eps = 1e-8, weight_decay = self.default_decay,
    amsgrad = false, maximize = false,
  }, known)
end

function Adam:check_group(group)
  Optimizer.check_group(self, group)
  check.number(self.where, "eps", group.eps, 0)
  check.type(self.where, "betas", group.betas, "table")
  for i = 1, 2 do
    local beta = check.number(self.where, ("betas[%d]"):format(i), group.betas[i], 0, 1)
    if beta == 1 then check.fail("%s: betas[%d] is 1, expected less than 1", self.where, i) end
  end
end

function Adam:update(group, parameter, grad, state)
  if not state.step then
    state.exp_avg = nyx.zeros_like(parameter)
    state.exp_avg_sq = nyx.zeros_like(parameter)
    if group.amsgrad then state.max_exp_avg_sq = nyx.zeros_like(parameter) end
    state.step = 0 -- last: now the state is complete
  end
  local step = state.step + 1
  parameter:adam_step_(grad, state.exp_avg, state.exp_avg_sq, state.max_exp_avg_sq,
    group.lr, group.weight_decay, group.maximize, self.grad_scale, group.betas[1], group.betas[2],
    group.eps, step, self.decoupled)
  state.step = step
end

--- AdamW: weight decay shrinks the parameter itself.
---@class nyx.optim.AdamW: nyx.optim.Adam
local AdamW = class("AdamW", Adam)
M.AdamW = AdamW

AdamW.decoupled = true
AdamW.default_decay = 0.01

return M
