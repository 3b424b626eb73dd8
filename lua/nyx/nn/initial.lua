-- nn.init: fills tensors with starting values, PyTorch's names and defaults. Every function
-- changes the tensor in place, records nothing and returns it.
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

-- Calls the method `name` of the tensor without recording.
local function fill(tensor, name, ...)
  return nyx.no_grad(tensor[name], tensor, ...)
end

--- Uniform over low..high (0..1).
---@param tensor any
---@param low? number
---@param high? number
function M.uniform_(tensor, low, high)
  check.tensor("init.uniform_", "tensor", tensor)
  return fill(tensor, "uniform_", low or 0, high or 1)
end

--- Normal with a mean (0) and a standard deviation (1).
---@param tensor any
---@param mean? number
---@param std? number
function M.normal_(tensor, mean, std)
  check.tensor("init.normal_", "tensor", tensor)
  return fill(tensor, "normal_", mean or 0, std or 1)
end

--- The same number everywhere.
---@param tensor any
---@param value number
function M.constant_(tensor, value)
  check.tensor("init.constant_", "tensor", tensor)
  check.type("init.constant_", "value", value, "number")
  return fill(tensor, "fill_", value)
end

function M.zeros_(tensor) return M.constant_(tensor, 0) end
function M.ones_(tensor) return M.constant_(tensor, 1) end

--- The inputs and outputs that one weight of a layer touches: (out, in) of a linear
--- weight, times the size of the window for a convolution.
---@param tensor any
---@return integer fan_in
---@return integer fan_out
function M.fans(tensor)
  check.tensor("init", "tensor", tensor)
  local shape = tensor.shape
  if #shape < 2 then
    check.fail("init: a tensor of shape (%s) has no fans; at least two dimensions are needed",
      table.concat(shape, "x"))
  end
  local window = 1
  for d = 3, #shape do window = window * shape[d] end
  return shape[2] * window, shape[1] * window
end

--- The factor by which a nonlinearity shrinks a signal: calculate_gain("leaky_relu", 0.2).
---@param nonlinearity string
---@param parameter? number the negative slope of leaky_relu
---@return number
function M.calculate_gain(nonlinearity, parameter)
  check.choice("init.calculate_gain", "nonlinearity", nonlinearity,
    "linear sigmoid tanh relu leaky_relu selu conv2d")
  if nonlinearity == "tanh" then return 5 / 3 end
  if nonlinearity == "relu" then return math.sqrt(2) end
  if nonlinearity == "leaky_relu" then return math.sqrt(2 / (1 + (parameter or 0.01) ^ 2)) end
  if nonlinearity == "selu" then return 3 / 4 end
  return 1
end

local function kaiming_std(tensor, options, where)
  options = check.options(where, options, "a mode nonlinearity")
  local mode = check.choice(where, "mode", options.mode or "fan_in", "fan_in fan_out")
  local fan_in, fan_out = M.fans(tensor)
  local gain = M.calculate_gain(options.nonlinearity or "leaky_relu", options.a or 0)
  return gain / math.sqrt(mode == "fan_in" and fan_in or fan_out)
end

--- He et al. 2015. Options: a (0), mode ("fan_in"), nonlinearity ("leaky_relu").
---@param tensor any
---@param options? {a: number, mode: string, nonlinearity: string}
function M.kaiming_uniform_(tensor, options)
  local bound = math.sqrt(3) * kaiming_std(tensor, options, "init.kaiming_uniform_")
  return M.uniform_(tensor, -bound, bound)
end

---@param tensor any
---@param options? {a: number, mode: string, nonlinearity: string}
function M.kaiming_normal_(tensor, options)
  return M.normal_(tensor, 0, kaiming_std(tensor, options, "init.kaiming_normal_"))
end

local function xavier_std(tensor, gain)
  local fan_in, fan_out = M.fans(tensor)
  return (gain or 1) * math.sqrt(2 / (fan_in + fan_out))
end

--- Glorot and Bengio 2010.
---@param tensor any
---@param gain? number
function M.xavier_uniform_(tensor, gain)
  local bound = math.sqrt(3) * xavier_std(tensor, gain)
  return M.uniform_(tensor, -bound, bound)
end

---@param tensor any
---@param gain? number
function M.xavier_normal_(tensor, gain)
  return M.normal_(tensor, 0, xavier_std(tensor, gain))
end

return M
