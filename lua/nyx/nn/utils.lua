-- nn.utils: what is done to the gradients and parameters of a whole model.
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

local function list_of(where, parameters)
  if nyx.is_tensor(parameters) then return { parameters } end
  check.type(where, "parameters", parameters, "table")
  for i = 1, #parameters do check.tensor(where, ("parameters[%d]"):format(i), parameters[i]) end
  return parameters
end

--- Scales all gradients together so that their norm, as of one vector, is at most `max_norm`.
--- Gives the norm before.
---@param parameters nyx.Tensor[]|nyx.Tensor
---@param max_norm number
---@param norm_type? number default 2
---@return nyx.Tensor norm
function M.clip_grad_norm_(parameters, max_norm, norm_type)
  local where = "nn.utils.clip_grad_norm_"
  parameters = list_of(where, parameters)
  check.number(where, "max_norm", max_norm, 0)
  norm_type = check.number(where, "norm_type", norm_type or 2)
  return nyx.no_grad(function()
    local grads, norms = {}, {}
    for _, parameter in ipairs(parameters) do
      local grad = parameter.grad
      if grad then
        grads[#grads + 1] = grad
        norms[#norms + 1] = grad:norm(norm_type)
      end
    end
    if #grads == 0 then return nyx.zeros({}) end
    local total = nyx.stack(norms):norm(norm_type)
    local factor = (max_norm / (total + 1e-6)):clamp(-math.huge, 1)
    for _, grad in ipairs(grads) do grad:mul_(factor) end
    return total
  end)
end

--- Clamps every element of the gradients to -value..value.
---@param parameters nyx.Tensor[]|nyx.Tensor
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

--- All elements of all parameters as one vector, which stays connected to them.
---@param parameters nyx.Tensor[]
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
---@param parameters nyx.Tensor[]
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
