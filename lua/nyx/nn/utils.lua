-- nn.utils: what is done to the gradients and parameters of a whole model; nn.utils.rnn is
-- packed.lua, nn.utils.fuse is fuse.lua.
local check = require "nyx.check"
local Module = require "nyx.nn.module"
local nyx = require "nyx"

local M = { rnn = require "nyx.nn.packed", fuse = require "nyx.nn.fuse" }

-- Parameters as a list: of a tensor, a list of tensors, or a module.
local function list_of(where, parameters)
  if nyx.is_tensor(parameters) then return { parameters } end
  if Module.is_module(parameters) then return parameters:parameters() end
  check.type(where, "parameters", parameters, "table")
  local n = #parameters
  for key in pairs(parameters) do
    if type(key) ~= "number" or key < 1 or key > n or key % 1 ~= 0 then
      check.fail("%s: 'parameters' has the key '%s', expected a list of tensors, a tensor or a "
        .. "module", where, tostring(key))
    end
  end
  for i = 1, n do check.tensor(where, ("parameters[%d]"):format(i), parameters[i]) end
  return parameters
end

-- The gradients that are there.
local function gradients_of(parameters)
  local grads = {}
  for _, parameter in ipairs(parameters) do grads[#grads + 1] = parameter.grad end
  return grads
end

local halves = { float16 = true, bfloat16 = true }

-- The norm of all tensors together, as of one vector; in float32 at least.
local function total_norm(tensors, norm_type)
  local norms = {}
  for i, t in ipairs(tensors) do norms[i] = (halves[t.dtype] and t:float() or t):norm(norm_type) end
  return nyx.stack(norms):norm(norm_type)
end

--- The norm of all tensors of a list together, as of one vector.
---@param tensors nyx.Tensor[]|nyx.Tensor
---@param norm_type? number default 2
---@return nyx.Tensor norm
function M.get_total_norm(tensors, norm_type)
  local where = "nn.utils.get_total_norm"
  tensors = list_of(where, tensors)
  norm_type = check.number(where, "norm_type", norm_type or 2)
  if #tensors == 0 then return nyx.zeros({}) end
  return total_norm(tensors, norm_type)
end

--- Scales all gradients together so that their norm, as of one vector, is at most `max_norm`.
--- Gives the norm before.
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
---@param max_norm number
---@param norm_type? number default 2
---@param options? {error_if_nonfinite: boolean} also in place of norm_type, which may be named
---@return nyx.Tensor norm
function M.clip_grad_norm_(parameters, max_norm, norm_type, options)
  local where = "nn.utils.clip_grad_norm_"
  parameters = list_of(where, parameters)
  check.number(where, "max_norm", max_norm, 0)
  if type(norm_type) == "table" and options == nil then norm_type, options = nil, norm_type end
  options = check.options(where, options, "norm_type error_if_nonfinite")
  norm_type = check.number(where, "norm_type", norm_type or options.norm_type or 2)
  return nyx.no_grad(function()
    local grads = gradients_of(parameters)
    if #grads == 0 then return nyx.zeros({}) end
    local total = total_norm(grads, norm_type)
    if options.error_if_nonfinite and not total:isfinite():item() then
      check.fail("%s: the norm of the gradients is %s; find where it comes from (anomaly mode), "
        .. "or leave out error_if_nonfinite", where, tostring(total:item()))
    end
    local factor = (max_norm / (total + 1e-6)):clamp(-math.huge, 1)
    for _, grad in ipairs(grads) do grad:mul_(factor) end
    return total
  end)
end

--- Clamps every element of the gradients to -value..value.
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
---@param value number
function M.clip_grad_value_(parameters, value)
  local where = "nn.utils.clip_grad_value_"
  parameters = list_of(where, parameters)
  check.number(where, "value", value, 0)
  nyx.no_grad(function()
    for _, parameter in ipairs(parameters) do
      local grad = parameter.grad
      if grad then grad:clamp_(-value, value) end
    end
  end)
end

--- Divides all gradients together by their norm, as of one vector, plus eps: only their
--- direction is left. Gives the norm before.
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
---@param options? {norm_type: number, eps: number} 2, 1e-12
---@return nyx.Tensor norm
function M.normalize_grad_(parameters, options)
  local where = "nn.utils.normalize_grad_"
  parameters = list_of(where, parameters)
  options = check.options(where, options, "norm_type eps")
  local norm_type = check.number(where, "norm_type", options.norm_type or 2)
  local eps = check.number(where, "eps", options.eps or 1e-12, 0)
  return nyx.no_grad(function()
    local grads = gradients_of(parameters)
    if #grads == 0 then return nyx.zeros({}) end
    local total = total_norm(grads, norm_type)
    local divisor = nyx.where(total:gt(0), total + eps, 1)
    for _, grad in ipairs(grads) do grad:div_(divisor) end
    return total
  end)
end

--- Subtracts from every gradient with more than one dimension its mean over all dimensions
--- but the first, so that each output's weights get a gradient of mean zero (Yong et al.:
--- "Gradient Centralization", 2020).
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
function M.centralize_grad_(parameters)
  parameters = list_of("nn.utils.centralize_grad_", parameters)
  nyx.no_grad(function()
    for _, grad in ipairs(gradients_of(parameters)) do
      if grad.ndim > 1 then
        local dims = {}
        for d = 2, grad.ndim do dims[d - 1] = d end
        grad:sub_(grad:mean(dims, true))
      end
    end
  end)
end

--- Adds normal noise of variance eta / (1 + step)^gamma to every gradient (Neelakantan et al.:
--- "Adding Gradient Noise Improves Learning for Very Deep Networks", 2015). Gives the
--- standard deviation.
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
---@param options {step: integer, eta: number, gamma: number} step counts from 0; 0.01, 0.55
---@return number deviation
function M.add_grad_noise_(parameters, options)
  local where = "nn.utils.add_grad_noise_"
  parameters = list_of(where, parameters)
  options = check.options(where, options, "eta gamma step")
  local eta = check.number(where, "eta", options.eta or 0.01, 0)
  local gamma = check.number(where, "gamma", options.gamma or 0.55, 0)
  local step = check.integer(where, "step", options.step, 0)
  local deviation = math.sqrt(eta / (1 + step) ^ gamma)
  nyx.no_grad(function()
    for _, grad in ipairs(gradients_of(parameters)) do
      grad:add_(nyx.randn(grad.shape, { dtype = grad.dtype, device = grad.device }) * deviation)
    end
  end)
  return deviation
end

-- The product of two lists of gradients, as of vectors, in float64. nil is zero.
local function inner(a, b, n)
  local sum = 0
  for i = 1, n do
    if a[i] and b[i] then sum = sum + (a[i]:double() * b[i]:double()):sum():item() end
  end
  return sum
end

-- Takes out of every task's gradients what conflicts with those of the others.
local function project(tasks, order, n)
  local norms, conflicts = {}, {}
  for j, grads in ipairs(tasks) do norms[j] = inner(grads, grads, n) end
  local projected = {}
  for i, grads in ipairs(tasks) do
    local own = {}
    conflicts[i] = {}
    for p = 1, n do own[p] = grads[p] end
    for _, j in ipairs(order[i]) do
      local dot = inner(own, tasks[j], n)
      conflicts[i][j] = dot < 0
      if dot < 0 and norms[j] > 0 then
        for p = 1, n do
          local other = tasks[j][p]
          if other then
            local part = other * (-dot / norms[j])
            own[p] = own[p] and own[p] + part or part
          end
        end
      end
    end
    conflicts[i][i] = false
    projected[i] = own
  end
  return projected, conflicts
end

--- Adds to .grad the sum of the gradients of several losses, each without the components that
--- oppose the gradients of the others, taken one after the other in random order (Yu et al.:
--- "Gradient Surgery for Multi-Task Learning", 2020). Clear the gradients before.
---@param losses nyx.Tensor[] of one element each
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
---@param options? {retain_graph: boolean, shuffle: boolean} shuffle = false: in order
---@return boolean[][] conflicts [i][j]: whether loss i was projected off that of loss j
function M.pcgrad(losses, parameters, options)
  local where = "nn.utils.pcgrad"
  check.type(where, "losses", losses, "table")
  if #losses == 0 then check.fail("%s: 'losses' is empty, expected tensors", where) end
  for i = 1, #losses do check.tensor(where, ("losses[%d]"):format(i), losses[i]) end
  parameters = list_of(where, parameters)
  options = check.options(where, options, "retain_graph shuffle")
  local tasks, n = {}, #parameters
  for i, loss in ipairs(losses) do
    tasks[i] = nyx.grad(loss, parameters, { retain_graph = i < #losses or options.retain_graph })
  end
  return nyx.no_grad(function()
    local order = {}
    for i = 1, #tasks do
      local all = options.shuffle ~= false and nyx.randperm(#tasks):totable() or nil
      order[i] = {}
      for k = 1, #tasks do
        local j = all and all[k] or k
        if j ~= i then order[i][#order[i] + 1] = j end
      end
    end
    local projected, conflicts = project(tasks, order, n)
    for p, parameter in ipairs(parameters) do
      local sum = parameter.grad
      for i = 1, #projected do
        local part = projected[i][p]
        -- a gradient of its own: a part may be a view, or that of another parameter too
        if part then sum = sum and sum + part or part:clone() end
      end
      if sum then parameter.grad = sum end
    end
    return conflicts
  end)
end

--- All elements of all parameters as one vector, which stays connected to them.
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
---@return nyx.Tensor
function M.parameters_to_vector(parameters)
  local rows = {}
  for i, parameter in ipairs(list_of("nn.utils.parameters_to_vector", parameters)) do
    rows[i] = parameter:reshape({ -1 })
  end
  return nyx.cat(rows)
end

--- Writes a vector back into parameters, in order.
---@param vector nyx.Tensor
---@param parameters nyx.Tensor[]|nyx.Tensor|nyx.nn.Module
function M.vector_to_parameters(vector, parameters)
  local where = "nn.utils.vector_to_parameters"
  check.tensor(where, "vector", vector)
  parameters = list_of(where, parameters)
  local total, first = 0, 1
  for _, parameter in ipairs(parameters) do total = total + parameter:numel() end
  if vector:dim() ~= 1 or vector:numel() ~= total then
    check.fail("%s: 'vector' is %s, expected one dimension of %d elements", where,
      check.describe(vector), total)
  end
  nyx.no_grad(function()
    for _, parameter in ipairs(parameters) do
      local n = parameter:numel()
      parameter:copy_(vector:narrow(1, first, n):reshape(parameter.shape))
      first = first + n
    end
  end)
end

return M
