-- Hooks of modules, before and after, forward and backward.
local nyx = require "nyx"
local nn = nyx.nn

local function f64(values) return nyx.tensor(values, { dtype = "float64" }) end

local function leaf(values)
  local t = f64(values)
  t.requires_grad = true
  return t
end

local function fails(pattern, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert.matches(pattern, tostring(message))
end

-- y = 3 x, z = a b
local Triple = nyx.class("Triple", nn.Module)
function Triple:forward(x) return x * 3 end -- luacheck: no self
local Two = nyx.class("Two", nn.Module)
function Two:forward(a, b, c) return a * b, c and a + b end -- luacheck: no self

describe("forward hooks", function()
  it("see inputs and results, in order", function()
    local m, seen = Triple(), {}
    m:register_forward_pre_hook(function(module, x)
      seen[#seen + 1] = { module == m, "pre", x:item() }
    end)
    m:register_forward_hook(function(module, inputs, y)
      seen[#seen + 1] = { module == m, inputs.n, inputs[1]:item(), y:item() }
    end)
    assert.equal(6, m(f64 { 2 }):item())
    assert.same({ { true, "pre", 2 }, { true, 1, 2, 6 } }, seen)
    assert.equal(6, m:forward(f64 { 2 }):item())
    assert.equal(2, #seen) -- forward itself has none
  end)

  it("replace them", function()
    local m = Two()
    m:register_forward_pre_hook(function(_, a, b) return b, a + 1, true end)
    m:register_forward_pre_hook(function(_, a, b, c) return a * 10, b, c end)
    m:register_forward_hook(function(_, inputs, product, sum)
      assert.equal(3, inputs.n)
      return sum, product
    end)
    local sum, product = m(f64 { 2 }, f64 { 5 })
    assert.equal(150, product:item())
    assert.equal(53, sum:item())
  end)

  it("go by their handles", function()
    local m, count = Triple(), 0
    local second
    local first = m:register_forward_hook(function()
      count = count + 1
      second:remove()
    end)
    second = m:register_forward_hook(function() count = count + 10 end)
    m(f64 { 1 })
    assert.equal(11, count) -- what has begun ends
    m(f64 { 1 })
    assert.equal(12, count)
    first:remove()
    first:remove()
    m(f64 { 1 })
    assert.equal(12, count)
    assert.is_nil(rawget(m, "_hooks"))
    assert.matches("removed", tostring(first))
  end)

  it("run in a Sequential, and stay out of files", function()
    local net, shapes = nn.Sequential(nn.Linear(3, 4), nn.ReLU()), {}
    for _, m in ipairs(net:modules()) do
      m:register_forward_hook(function(module, _, y)
        shapes[#shapes + 1] = module:class_name() .. " " .. table.concat(y.shape, "x")
      end)
    end
    net(nyx.ones(2, 3))
    assert.same({ "Linear 2x4", "ReLU 2x4", "Sequential 2x4" }, shapes)
    local path = os.tmpname() .. ".nyx"
    assert.is_true(nyx.save(path, net))
    local loaded = nyx.load(path)
    os.remove(path)
    assert.is_nil(rawget(loaded, "_hooks"))
    assert.same(net(nyx.ones(2, 3)):totable(), loaded(nyx.ones(2, 3)):totable())
  end)

  it("are checked", function()
    fails("register_forward_hook: the hook is number 1, expected a function",
      function() Triple():register_forward_hook(1) end)
    local m = Triple()
    m:register_forward_hook(function() error "mine" end)
    fails("mine", m, f64 { 1 })
  end)
end)

describe("full backward hooks", function()
  it("see the gradients of inputs and results", function()
    local m, seen = Two(), {}
    m:register_full_backward_hook(function(module, grad_input, grad_output)
      seen[#seen + 1] = { module == m, grad_input.n, grad_input[1]:item(), grad_input[2],
        grad_output.n, grad_output[1]:item(), grad_output[2]:item() }
    end)
    local a = leaf { 2 }
    local product, sum = m(a, f64 { 5 }, true)
    local total = product * 7 + sum * 11 + a -- the last goes past the module
    total:backward()
    assert.same({ { true, 3, 46, nil, 2, 7, 11 } }, seen)
    assert.equal(47, a.grad:item())
  end)

  it("replace them, before and after", function()
    local m = Triple()
    local x = leaf { 1, 2 }
    m:register_full_backward_pre_hook(function(_, grad_output)
      return { grad_output[1] * 10 }
    end)
    m:register_full_backward_hook(function(_, grad_input, grad_output)
      assert.same({ 10, 10 }, grad_output[1]:totable())
      assert.same({ 30, 30 }, grad_input[1]:totable())
      return grad_input[1] + 1 -- a tensor where there is one input
    end)
    m(x):sum():backward()
    assert.same({ 31, 31 }, x.grad:totable())
  end)

  it("have gradients of their own", function()
    local Square = nyx.class("Square", nn.Module)
    function Square:forward(x) return x * x * x end -- luacheck: no self
    local m, x, calls = Square(), leaf { 2 }, 0
    m:register_full_backward_hook(function() calls = calls + 1 end)
    local g = nyx.grad(m(x):sum(), x, { create_graph = true })
    assert.equal(12, g:item())
    assert.equal(12, nyx.grad(g:sum(), x):item())
    assert.is_true(calls >= 1)
  end)

  it("work where only parameters require gradients", function()
    local m, seen = nn.Linear(2, 1), {}
    m:register_full_backward_hook(function(_, grad_input, grad_output)
      seen = { grad_input.n, grad_input[1], grad_output[1]:totable() }
    end)
    m(nyx.ones(3, 2)):sum():backward()
    assert.same({ 1, nil, { { 1 }, { 1 }, { 1 } } }, seen)
    assert.same({ { 3, 3 } }, m.weight.grad:totable())
  end)

  it("keep quiet without gradients, and when removed", function()
    local m, calls = Triple(), 0
    local handle = m:register_full_backward_hook(function() calls = calls + 1 end)
    assert.equal(3, m(f64 { 1 }):item())
    local x = leaf { 1 }
    assert.is_false(nyx.no_grad(m, x).requires_grad)
    handle:remove()
    m(x):backward()
    assert.equal(0, calls)
  end)

  it("check what hooks give", function()
    local m, x, give = Two(), leaf { 1, 2 }, nil
    m:register_full_backward_hook(function() return give end)
    local function run() (m(x, f64 { 3, 4 })):sum():backward() end
    give = 3
    fails("Two:register_full_backward_hook: a hook gave number 3", run)
    give = { nil, f64 { 1, 1 } }
    fails("number 2, which has none", run)
    give = { f64 { 1 } }
    fails("Two:register_full_backward_hook: a hook gave gradient 1 of shape %(1%), dtype float64 "
      .. "on cpu, expected shape %(2%), dtype float64 on cpu", run)
    assert.is_nil(x.grad)
    give = {}
    run()
    assert.same({ 3, 4 }, x.grad:totable())
  end)

  it("refuse changes of what passes through them", function()
    local m, x = Triple(), leaf { 1, 2 } * 1
    m:register_full_backward_hook(function() end)
    fails("made .*by a function", function() m(x):mul_(2) end)
  end)

  it("let go of their graph", function()
    local gone = setmetatable({}, { __mode = "k" })
    local m = Triple()
    m:register_full_backward_hook(function() end)
    do
      local big = {}
      gone[big] = true
      local x = leaf { 1 }
      local y = m(x)
      y:register_hook(function() return big and nil end)
      local g = nyx.grad(y, x, { create_graph = true })
      g:release()
      y:release()
      x:release()
    end
    for _ = 1, 5 do
      collectgarbage()
      nyx.ones(1, { requires_grad = true }):sum():backward() -- sweeps
    end
    assert.is_nil(next(gone))
  end)
end)
