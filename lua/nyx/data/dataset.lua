-- Datasets: anything with size() and get(indices), which gives a batch. TensorDataset holds
-- tensors, Subset chooses rows of another dataset, split divides one.
local class = require "nyx.class"
local check = require "nyx.check"
local nyx = require "nyx"

local M = {}

--- Tensors whose first dimensions agree: row i of each belongs together.
---@class nyx.data.TensorDataset
---@field tensors table
local TensorDataset = class("TensorDataset")
M.TensorDataset = TensorDataset

---@param ... any tensors
function TensorDataset:init(...)
  local n = select("#", ...)
  if n == 0 then check.fail("data.TensorDataset: no tensors given; expected at least one") end
  self.tensors = {}
  for i = 1, n do
    local tensor = check.tensor("data.TensorDataset", ("argument %d"):format(i),
      (select(i, ...)))
    if tensor:dim() == 0 or tensor:size(1) ~= (self.tensors[1] or tensor):size(1) then
      check.fail("data.TensorDataset: argument %d has shape (%s), expected %s rows", i,
        table.concat(tensor.shape, "x"),
        self.tensors[1] and tostring(self.tensors[1]:size(1)) or "some")
    end
    self.tensors[i] = tensor
  end
end

--- How many rows there are.
---@return integer
function TensorDataset:size() return self.tensors[1]:size(1) end

--- The rows at positions `indices`, an int64 tensor; without it, all rows.
---@param indices? any
---@return any ... one tensor for each of the dataset
function TensorDataset:get(indices)
  local batch = {}
  for i, tensor in ipairs(self.tensors) do
    batch[i] = indices and tensor:index_select(1, indices) or tensor
  end
  return (unpack or table.unpack)(batch)
end

--- Rows first..first+count-1, as views.
---@param first integer
---@param count integer
---@return any ...
function TensorDataset:range(first, count)
  local batch = {}
  for i, tensor in ipairs(self.tensors) do batch[i] = tensor:narrow(1, first, count) end
  return (unpack or table.unpack)(batch)
end

--- Some rows of a dataset.
---@class nyx.data.Subset
local Subset = class("Subset")
M.Subset = Subset

---@param dataset table
---@param indices any an int64 tensor or a list of positions, from 1
function Subset:init(dataset, indices)
  if type(indices) == "table" then indices = nyx.tensor(indices, { dtype = "int64" }) end
  check.tensor("data.Subset", "indices", indices)
  self.dataset, self.indices = dataset, indices
end

---@return integer
function Subset:size() return self.indices:size(1) end

---@param indices? any
---@return any ...
function Subset:get(indices)
  return self.dataset:get(indices and self.indices:index_select(1, indices) or self.indices)
end

--- Divides a dataset at random into subsets of the given sizes: counts that add up to the
--- whole, or fractions that add up to 1 (the last takes what rounding leaves). The order
--- comes from nyx.manual_seed; {shuffle = false} keeps it.
---@param dataset table
---@param sizes number[]
---@param options? {shuffle: boolean}
---@return nyx.data.Subset ...
function M.split(dataset, sizes, options)
  check.type("data.split", "sizes", sizes, "table")
  options = check.options("data.split", options, "shuffle")
  local total, sum = type(dataset) == "table" and dataset.size and dataset:size(), 0
  if type(total) ~= "number" then
    check.fail("data.split: 'dataset' is %s, expected a dataset; see data.TensorDataset",
      check.describe(dataset))
  end
  for i = 1, #sizes do
    sum = sum + check.number("data.split", ("sizes[%d]"):format(i), sizes[i], 0)
  end
  local counts, used = {}, 0
  if math.abs(sum - 1) < 1e-9 and total ~= 1 then
    for i = 1, #sizes do
      counts[i] = i < #sizes and math.floor(sizes[i] * total + 0.5) or total - used
      used = used + counts[i]
    end
  else
    counts, used = sizes, sum
  end
  if used ~= total or #sizes == 0 then
    check.fail("data.split: the sizes add up to %g, expected %d rows, or fractions that add up "
      .. "to 1", sum, total)
  end
  local order
  if options.shuffle == false then
    order = nyx.arange(1, total + 1, { dtype = "int64" })
  else
    order = nyx.randperm(total)
  end
  local parts, first = {}, 1
  for i = 1, #counts do
    parts[i] = M.Subset(dataset, order:narrow(1, first, counts[i]))
    first = first + counts[i]
  end
  return (unpack or table.unpack)(parts)
end

return M
