-- nyx.data: datasets, batches, readers.
--   local set = data.TensorDataset(images, labels)
--   local train, held_out = data.split(set, {0.8, 0.2})
--   for x, y in data.DataLoader(train, {batch_size = 32, shuffle = true}) do ... end
local dataset = require "nyx.data.dataset"

return {
  TensorDataset = dataset.TensorDataset,
  Subset = dataset.Subset,
  split = dataset.split,
  DataLoader = require "nyx.data.loader",
  csv = require "nyx.data.csv",
  idx = require "nyx.data.idx",
}
