-- What the comparison with PyTorch (peer.py) once found wrong, small and without Python.
local nyx = require "nyx"

local function f64(values) return nyx.tensor(values, { dtype = "float64" }) end

-- First gradient of f at x, recorded or not.
local function gradient(f, x, create_graph)
  x = x:detach():clone()
  x.requires_grad = true
  return nyx.grad(f(x):sum(), x, { create_graph = create_graph }), x
end

describe("what the peers found", function()
  it("gather reads a dimension that is repeated in memory", function()
    local x = nyx.arange(1, 7):reshape(3, 1, 2):expand(3, 4, 2)
    local index = nyx.tensor({ 1, 2, 2, 1, 2, 1 }, { dtype = "int64" }):reshape(3, 2, 1)
    assert.same(x:contiguous():gather(index, 3):totable(), x:gather(index, 3):totable())
  end)

  it("a recorded gradient keeps attributes and exponents in float64", function()
    local x = f64 { -2.3, 0.7 }
    for _, f in ipairs {
      function(t) return nyx.huber(t, f64 { 0.1, 0.2 }, { delta = 0.3 }) end,
      function(t) return t:abs():pow(2.3) end,
    } do
      assert.same(gradient(f, x, false):totable(), gradient(f, x, true):totable())
    end
  end)

  it("second gradients of a norm of zeros are 0", function()
    for _, p in ipairs { 2, 3 } do
      local g, x = gradient(function(t) return t:norm(p) end, f64 { 0, 0 }, true)
      local second = nyx.grad((g * g):sum(), x)
      assert.same({ 0, 0 }, (second or nyx.zeros_like(x)):totable())
    end
  end)

  it("the gradient of atan2 at the origin is 0", function()
    local g = gradient(function(t) return t:atan2(f64 { 0 }) end, f64 { 0 })
    assert.equal(0, g:item())
  end)
end)
