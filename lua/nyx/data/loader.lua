-- data.DataLoader: goes through a dataset in batches.
local class = require "nyx.class"
local check = require "nyx.check"
local nyx = require "nyx"

--- for x, y in loader do ... end: every loop is one epoch. Options: batch_size (1), shuffle
--- (the order comes from nyx.manual_seed), drop_last (leaves out a shorter last batch).
---@class nyx.data.DataLoader
---@field dataset table
local DataLoader = class("DataLoader")

---@param dataset table
---@param options? {batch_size: integer, shuffle: boolean, drop_last: boolean}
function DataLoader:init(dataset, options)
  options = check.options("data.DataLoader", options, "batch_size shuffle drop_last")
  if type(dataset) ~= "table" or not dataset.get or not dataset.size then
    check.fail("data.DataLoader: 'dataset' is %s, expected a dataset with get and size",
      check.describe(dataset))
  end
  self.dataset = dataset
  self.batch_size = check.integer("data.DataLoader", "batch_size", options.batch_size or 1)
  self.shuffle = options.shuffle or false
  self.drop_last = options.drop_last or false
end

--- How many batches an epoch has.
---@return integer
function DataLoader:count()
  local batches = self.dataset:size() / self.batch_size
  return self.drop_last and math.floor(batches) or math.ceil(batches)
end

--- An iterator over one epoch, independent of others.
---@return fun(): any
function DataLoader:iter()
  local dataset, size = self.dataset, self.dataset:size()
  local batches, batch_size, batch = self:count(), self.batch_size, 0
  local order = self.shuffle and nyx.randperm(size)
  local no_order = not order and not dataset.range and nyx.arange(1, size + 1, { dtype = "int64" })
  return function()
    if batch == batches then return nil end
    local first = batch * batch_size + 1
    local count = math.min(batch_size, size - first + 1)
    batch = batch + 1
    if order then return dataset:get(order:narrow(1, first, count)) end
    if no_order then return dataset:get(no_order:narrow(1, first, count)) end
    return dataset:range(first, count)
  end
end

-- A loop calls the loader itself, first with a control value of nil: a new epoch.
function DataLoader:__call(_, previous)
  if previous == nil then self.running = self:iter() end
  return self.running()
end

return DataLoader
