-- Learns to read handwritten digits: 1,797 images of 8x8 pixels, a fifth of them held out.
--   nyx examples/digits.lua [model file]      (or lua5.4, or luajit)
-- Ends with exit code 1 when fewer than 97 % of the held-out digits are read correctly.
local nyx = require "nyx"
local nn, optim, data, train = nyx.nn, nyx.optim, nyx.data, nyx.train

local here = arg[0]:match("^(.*/)") or ""
local model_file = arg[1] or os.tmpname()
local epochs = 8

nyx.manual_seed(7)

-- The data: 64 brightnesses from 0 to 16, then the digit. Labels count from 1: digit 0 is
-- class 1.
local rows = assert(data.csv(here .. "data/digits.csv.gz"))
local images = rows:narrow(2, 1, 64):reshape({ -1, 1, 8, 8 }) / 16
local labels = rows:select(2, 65):to("int64") + 1
local set = data.TensorDataset(images, labels)
local training, held_out = data.split(set, { 0.8, 0.2 })
print(("%d images to learn from, %d held out"):format(training:size(), held_out:size()))

local model = nn.Sequential(
  nn.Conv2d(1, 16, 3, { padding = 1 }), nn.ReLU(),
  nn.Conv2d(16, 32, 3, { padding = 1 }), nn.ReLU(),
  nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25),
  nn.Linear(512, 10)
)
print(model)

local criterion = nn.CrossEntropyLoss()
local optimizer = optim.AdamW(model:parameters(), { lr = 3e-3, weight_decay = 0.05 })
local schedule = optim.CosineAnnealingLR(optimizer, { T_max = epochs })
local loader = data.DataLoader(training, { batch_size = 32, shuffle = true })

for epoch = 1, epochs do
  local bar = train.progress(loader, { label = ("epoch %2d"):format(epoch) })
  local sum = 0
  for x, y in bar do
    optimizer:zero_grad()
    local loss = criterion(model(x), y)
    loss:backward()
    optimizer:step()
    sum = sum + loss:item()
    bar:set("loss", sum / bar.done)
  end
  schedule:step()
end

-- How well it reads digits it has never seen.
model:eval()
local x, y = held_out:get()
local scores = nyx.no_grad(function() return model(x) end)
local predicted = scores:argmax(2)
local accuracy = train.accuracy(predicted, y)

local names = { "0", "1", "2", "3", "4", "5", "6", "7", "8", "9" }
print("\nHeld-out digits (rows) and what the network read (columns):\n")
print(train.confusion_text(train.confusion(predicted, y, 10), names))

-- Two that were read correctly, two that were not.
local shown, wanted = {}, { [true] = 2, [false] = 2 }
for i = 1, y:size(1) do
  local read, is = predicted[i]:item() - 1, y[i]:item() - 1
  local right = read == is
  if wanted[right] > 0 then
    wanted[right] = wanted[right] - 1
    shown[#shown + 1] = { x[i][1], ("read %d%s"):format(read, right and "" or ", is " .. is) }
  end
end
print("\n" .. nyx.show.images(shown, { low = 0, high = 1 }) .. "\n")

-- The model survives a file.
assert(nyx.save(model_file, model))
local again = assert(nyx.load(model_file))
local same = nyx.no_grad(function() return again(x) end)
assert(scores:eq(same):all():item(), "the loaded model computes something else")
for name, tensor in pairs(model:state_dict()) do
  assert(tensor:eq(again:state_dict()[name]):all():item(), name .. " differs after loading")
end
print(("saved to %s, loaded again, and equal"):format(model_file))
if not arg[1] then os.remove(model_file) end

print(("held-out accuracy: %.2f %%"):format(100 * accuracy))
if accuracy < 0.97 then
  io.stderr:write("expected at least 97 %\n")
  os.exit(1)
end
