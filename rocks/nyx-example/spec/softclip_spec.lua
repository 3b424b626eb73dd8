-- The op of this extension: values, layouts, dtypes, errors, and gradients against finite
-- differences. Run it where both rocks are installed: busted spec
local nyx = require "nyx"
local example = require "nyx.example"

local function tanh(x)
  local a, b = math.exp(x), math.exp(-x)
  return (a - b) / (a + b)
end

local function close(expected, got, tolerance)
  assert.equal(#expected, #got)
  for i = 1, #expected do
    assert.is_true(math.abs(expected[i] - got[i]) <= tolerance,
      ("element %d is %.17g, expected %.17g"):format(i, got[i], expected[i]))
  end
end

local numbers = { -3, -1.25, -0.5, 0, 0.125, 0.75, 2, 40 }

local function expected(limit)
  local list = {}
  for i, x in ipairs(numbers) do list[i] = limit * tanh(x / limit) end
  return list
end

describe("softclip", function()
  it("is a function, a method and an in-place method", function()
    local x = nyx.tensor(numbers)
    close(expected(1), nyx.softclip(x):totable(), 1e-6)
    close(expected(1), x:softclip():totable(), 1e-6)
    close(expected(2.5), x:softclip(2.5):totable(), 1e-6)
    close(expected(2.5), x:softclip { limit = 2.5 }:totable(), 1e-6)
    assert.equal(x, x:softclip_())
    close(expected(1), x:totable(), 1e-6)
  end)

  it("computes in every float dtype, and makes floats of integers", function()
    for dtype, tolerance in pairs { float64 = 1e-15, float32 = 1e-6, float16 = 1e-3,
      bfloat16 = 8e-3 } do
      local y = nyx.tensor(numbers, { dtype = dtype }):softclip()
      assert.equal(dtype, y.dtype)
      close(expected(1), y:totable(), tolerance)
    end
    local y = nyx.tensor({ 0, 1 }, { dtype = "int32" }):softclip()
    assert.equal("float32", y.dtype)
    close({ 0, tanh(1) }, y:totable(), 1e-6)
  end)

  it("takes any shape and strides", function()
    local x = nyx.arange(0, 12, { dtype = "float64" }):reshape(3, 4) / 12
    local plain = x:t():contiguous():softclip()
    local strided = x:t():softclip()
    assert.same({ 4, 3 }, strided.shape)
    close(plain:reshape(-1):totable(), strided:reshape(-1):totable(), 0)
    assert.same({ 2, 0 }, nyx.zeros(2, 0):softclip().shape)
    close({ tanh(0.5) }, { nyx.tensor(0.5):softclip():item() }, 1e-6)
    assert.equal(100000, nyx.ones(100000):softclip():ge(0.76):sum():item())
  end)

  it("refuses limits that are none", function()
    for _, limit in ipairs { 0, -1, math.huge, 0 / 0 } do
      local ok, message = pcall(nyx.softclip, nyx.ones(2), limit)
      assert.is_false(ok)
      assert.is_truthy(message:find("softclip: limit is ", 1, true), message)
    end
  end)

  -- d f / d x by central differences.
  local function differences(f, x)
    local out, step = {}, 1e-5
    for i = 1, x:numel() do
      local above, below = x:clone(), x:clone()
      above[i] = above[i] + step
      below[i] = below[i] - step
      out[i] = (f(above) - f(below)) / (2 * step)
    end
    return out
  end

  it("has a gradient, and that one too", function()
    local values = nyx.tensor({ -1.5, -0.3, 0.2, 0.9, 1.7 }, { dtype = "float64" })
    local weights = nyx.tensor({ 1, -2, 0.5, 3, 1.5 }, { dtype = "float64" })
    for _, limit in ipairs { 0.7, 1, 2 } do
      local function value(x) return (x:softclip(limit) * weights):sum() end
      local function slope(x, create)
        return nyx.grad(value(x), x, { create_graph = create })
      end
      local function fresh(x)
        local leaf = x:detach():clone()
        leaf.requires_grad = true
        return leaf
      end
      local x = fresh(values)
      close(differences(function(at) return value(at):item() end, values),
        slope(x):totable(), 1e-8)
      local second = nyx.grad((slope(x, true) * weights):sum(), x)
      close(differences(function(at) return (slope(fresh(at)) * weights):sum():item() end, values),
        second:totable(), 1e-8)
    end
  end)

  it("fails cleanly wherever memory ends", function()
    local x = nyx.tensor(numbers, { dtype = "float16", requires_grad = true })
    local function step()
      nyx.grad(x:softclip(2), x, { gradient = nyx.ones(#numbers, { dtype = "float16" }) })
    end
    step()
    local failures, ok, message = 0
    repeat
      collectgarbage()
      nyx.memory_trim()
      nyx.memory_fail_after(failures)
      ok, message = pcall(step)
      nyx.memory_fail_after(-1)
      failures = failures + 1
      assert.is_true(ok or message:find("memory", 1, true) ~= nil, message)
    until ok or failures == 1000
    assert.is_true(ok and failures > 10, ("%d failures"):format(failures))
    close({ numbers[1] }, { x[1]:item() }, 0)
  end)

  it("is explained by the help", function()
    local text = require("nyx.help").text "softclip"
    assert.is_truthy(text:find("limit * tanh(x / limit)", 1, true), text)
    assert.is_truthy(text:find("limit (float, default 1)", 1, true), text)
  end)

  it("is a layer", function()
    local model = nyx.nn.Sequential(nyx.nn.Linear(3, 4), example.SoftClip(0.5))
    local y = model(nyx.randn(8, 3) * 10)
    assert.same({ 8, 4 }, y.shape)
    assert.is_true(y:abs():max():item() <= 0.5)
    assert.equal(example, nyx.example)
  end)
end)
