-- What the cases of the benchmark are made of: their list, inputs that both sides compute by
-- the same formula, and results as bytes to compare. Read next: cases/, init.lua.
local nyx = require "nyx"

local M = { list = {}, by_name = {}, group = "" }

--- Adds a case. make() gives step(), one repeat, which returns its result or results (to be
--- compared with those of the peers), and run(n) for n repeats where a call for each would be
--- part of what is measured. Options:
---   limit    {kind, amount}: what bounds it (fma32 fma64 int8 bf16 in operations, copy triad
---            read in bytes, counted once for each array read or written)
---   tol      how far results may be from PyTorch's: the greatest difference, divided by the
---            greatest element of the tensor; 1e-5
---   checks   how many steps are compared (of models, whose later losses say whether the first
---            updates were right); 1
---   peer     the call as other libraries know it, see spec/bench/gemm.py and onednn.c
---   note     how it differs from the ideal: composed where there is no op
---   missing  why Nyx cannot do it at all
---@param name string
---@param options table
---@param make? fun(): fun(), fun(n: integer)?
function M.case(name, options, make)
  assert(not M.by_name[name], name)
  local case = { name = name, group = M.group, make = make }
  for key, value in pairs(options) do case[key] = value end
  M.list[#M.list + 1] = case
  M.by_name[name] = case
end

-- 32 random bits for each position: a hash, whose integer steps are exact everywhere.
local function bits(seed, shape)
  local n = 1
  for _, size in ipairs(shape) do n = n * size end
  local mask, h = 4294967295, nyx.arange(0, n, { dtype = "int64" })
  h:mul_(2654435761):add_(seed * 40503):bitwise_and_(mask)
  for _ = 1, 2 do
    h:bitwise_xor_(h:bitwise_right_shift(16)):mul_(73244475):bitwise_and_(mask)
  end
  return h:bitwise_xor_(h:bitwise_right_shift(16)):reshape(shape)
end

--- Evenly spread floats in -1.75 .. 1.75, variance 1.02: values(seed, {rows, columns}).
---@param seed integer
---@param shape integer[]
function M.values(seed, shape)
  return bits(seed, shape):bitwise_right_shift_(8):float():mul_(2 / 16777216):sub_(1):mul_(1.75)
end

--- Integers from low to below high.
---@param seed integer
---@param low integer
---@param high integer
---@param shape integer[]
function M.integers(seed, low, high, shape)
  return bits(seed, shape):remainder_(high - low):add_(low)
end

--- The same parameters on both sides: matrices by formula, divided by the root of their
--- fan-in, biases 0; norms keep their ones.
---@param model nyx.nn.Module
function M.fill(model)
  local seed = 100
  nyx.no_grad(function()
    for name, parameter in model:named_parameters() do
      seed = seed + 1
      local shape = parameter.shape
      if #shape > 1 then
        parameter:copy_(M.values(seed, shape) * (parameter:numel() / shape[1]) ^ -0.5)
      elseif name:find "bias$" then
        parameter:zero_()
      end
    end
  end)
  return model
end

--- A step of training: step() gives the loss.
---@param model nyx.nn.Module
---@param optimizer nyx.optim.Optimizer
---@param x any
---@param labels any
function M.training(model, optimizer, x, labels)
  return function()
    optimizer:zero_grad()
    local loss = model(x):cross_entropy(labels)
    loss:backward()
    optimizer:step()
    return loss
  end
end

local sampled = 2 ^ 20

--- A result as float64, at most 2^20 of its elements, and the mean of all magnitudes.
---@param tensor any
---@return string
function M.bytes(tensor)
  local flat = tensor:detach():flatten()
  local n = flat:numel()
  local step = n > sampled and math.floor(n / sampled) + 1 or 1
  if step % 2 == 0 then step = step + 1 end
  if step > 1 then flat = flat:slice(1, 1, n, step) end
  local values = flat:double():contiguous()
  local mean = n > 0 and values:abs():mean():reshape(1) or nyx.zeros({ 1 }, { dtype = "float64" })
  return values:tobytes() .. mean:tobytes()
end

return M
