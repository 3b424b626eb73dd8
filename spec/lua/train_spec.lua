-- nyx.train and nyx.show: progress bars, accuracy, confusion matrices, small images.
local nyx = require "nyx"
local train, data, show = nyx.train, nyx.data, nyx.show

local function message_of(...)
  local ok, text = pcall(...)
  assert.is_false(ok)
  return text
end

-- A file that remembers, and a clock that goes on by itself.
local function recorder()
  local parts = {}
  return {
    write = function(_, ...)
      for i = 1, select("#", ...) do parts[#parts + 1] = (select(i, ...)) end
    end,
    flush = function() end,
  }, function() return table.concat(parts) end
end

local function clock_of(step)
  local now = 100
  return function()
    now = now + step
    return now
  end
end

describe("progress", function()
  it("passes on what the loop's source gives", function()
    local file = recorder()
    local set = data.TensorDataset(nyx.arange(1, 6), nyx.arange(11, 16))
    local sum, rounds = 0, 0
    for x, y in train.progress(data.DataLoader(set, { batch_size = 2 }), { file = file }) do
      sum, rounds = sum + (x * y):sum():item(), rounds + 1
    end
    assert.are.equal(11 + 24 + 39 + 56 + 75, sum)
    assert.are.equal(3, rounds)
    local list = {}
    for i in train.progress(4, { file = file }) do list[#list + 1] = i end
    assert.are.same({ 1, 2, 3, 4 }, list)
  end)

  it("draws one line on a terminal, with rate and time left", function()
    local file, text = recorder()
    local bar = train.progress(10, { label = "epoch 1", file = file, terminal = true,
      columns = 80, clock = clock_of(1) })
    for i in bar do
      bar:set("loss", 1 / i)
    end
    local lines = {}
    for line in text():gmatch("[^\r]+") do lines[#lines + 1] = line end
    assert.is_true(#lines >= 10)
    assert.is_nil(text():sub(1, -2):find("\n"))
    assert.matches("^epoch 1   50%% ▕[█▌]+ +▏ 5/10  0%.83/s  0:06 left  loss 0.2\27%[K$", lines[6])
    assert.matches("^epoch 1  100%% ▕[█]+▏ 10/10  0%.91/s  0:11  loss 0%.1\27%[K\n$", lines[#lines])
  end)

  it("writes few plain lines elsewhere", function()
    local file, text = recorder()
    for _ in train.progress(100, { label = "work", file = file, terminal = false,
      clock = clock_of(0.25) }) do
    end
    local lines = {}
    for line in text():gmatch("([^\n]*)\n") do lines[#lines + 1] = line end
    assert.are.equal(3, #lines)
    assert.is_nil(text():find("[\r\27▕]"))
    assert.are.equal("work   39%  39/100  3.90/s  0:16 left", lines[1])
    assert.are.equal("work  100%  100/100  3.96/s  0:25", lines[3])
  end)

  it("does without a total", function()
    local file, text = recorder()
    local left = 3
    local function source()
      left = left - 1
      if left >= 0 then return left end
    end
    for _ in train.progress(source, { file = file, terminal = true, clock = clock_of(20) }) do
    end
    assert.matches("3  20.0 s each  1:20\27%[K\n$", (text():gsub("26.7", "20.0")))
    assert.matches("the source is string 'x', expected a loader", message_of(train.progress, "x"))
    assert.matches("unknown option 'lable'", message_of(train.progress, 3, { lable = "x" }))
  end)
end)

local function labels(...) return nyx.tensor({ ... }, { dtype = "int64" }) end

describe("metrics", function()
  it("accuracy takes labels or scores", function()
    assert.are.equal(0.75, train.accuracy(labels(1, 2, 3, 1), labels(1, 2, 3, 2)))
    local scores = nyx.tensor({ { 0.1, 0.9 }, { 0.8, 0.2 } })
    assert.are.equal(0.5, train.accuracy(scores, labels(2, 2)))
    assert.matches("train_spec.lua:%d+: train.accuracy: the predictions have shape %(2%)",
      message_of(function() train.accuracy(labels(1, 2), labels(1, 2, 3)) end))
  end)

  it("confusion matrices count truth by prediction", function()
    local matrix = train.confusion(labels(1, 2, 2, 3, 1), labels(1, 2, 3, 3, 2))
    assert.are.same({ { 1, 0, 0 }, { 1, 1, 0 }, { 0, 1, 1 } }, matrix:totable())
    assert.are.same({ 4, 4 }, train.confusion(labels(1), labels(1), 4).shape)
    assert.matches("label 3 at position 1, expected 1..2",
      message_of(train.confusion, labels(1), labels(3), 2))
    assert.matches("label 1.5 at position 1, expected 1%.%.2", message_of(train.confusion,
      nyx.tensor { 1.5, 2 }, labels(1, 2)))
    assert.matches("label inf", message_of(train.confusion, nyx.tensor { math.huge }, labels(1)))
    assert.matches("labels up to 65504, expected at most 4096 classes", message_of(train.confusion,
      labels(1), nyx.tensor { 65504 }))
    assert.matches("label 3 at position 1, expected 1..2",
      message_of(train.confusion, labels(3), labels(1), 2))
  end)

  it("are printed with recalls", function()
    local matrix = nyx.tensor({ { 9, 1, 0 }, { 0, 12, 0 }, { 0, 0, 0 } }, { dtype = "int64" })
    assert.are.equal(table.concat({
      "true cat dog  ox  recall",
      " cat   9   1   .   90.0%",
      " dog   .  12   .  100.0%",
      "  ox   .   .   .      -",
    }, "\n"), train.confusion_text(matrix, { "cat", "dog", "ox" }))
    assert.matches("^true  1  2  3  recall\n   1  9  1  %.", train.confusion_text(matrix))
  end)
end)

describe("images", function()
  it("are shades where there is no colour", function()
    local image = nyx.tensor({ { 0, 0.25, 0.5 }, { 0.75, 1, 0 } })
    assert.are.equal("  ░░▒▒\n▓▓██", show.image(image, { colour = false, low = 0, high = 1 }))
    local text = show.images({ { image, "one" }, { image, "two words" } }, { colour = false })
    assert.are.equal("  ░░▒▒    ░░▒▒\n▓▓██    ▓▓██\none     two words", text)
  end)

  it("are half blocks in greys where there is", function()
    local image = nyx.tensor({ { 0, 1 }, { 1, 0 }, { 1, 1 } })
    assert.are.equal("\27[38;5;232;48;5;255m▀\27[38;5;255;48;5;232m▀\27[0m\n"
      .. "\27[38;5;255;48;5;232m▀\27[38;5;255;48;5;232m▀\27[0m",
      show.image(image, { colour = true }))
  end)

  it("that are no images are refused", function()
    assert.matches("image 1 has shape %(3%), expected %(height, width%)",
      message_of(show.image, nyx.zeros({ 3 }), { colour = false }))
    assert.is_string(show.image(nyx.zeros({ 2, 2 }), { colour = false }))
    assert.are.equal("  ██", show.image(nyx.tensor({ { 0 / 0, 1 } }),
      { colour = false, low = 0, high = 1 }))
  end)
end)
