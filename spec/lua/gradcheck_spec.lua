-- nyx.gradcheck and nyx.gradgradcheck: what they find, and what they say of it. Every op under
-- them is spec/op/op_spec.lua. Read next: lua/nyx/gradcheck.lua.
local here = debug.getinfo(1, "S").source:match "^@(.*/)" or "./"
package.path = here .. "../op/?.lua;" .. package.path
local nyx = require "nyx"
local case = require "case"
local nn = nyx.nn

local f64 = { dtype = "float64" }

local function input(values)
  return nyx.tensor(values, { dtype = "float64", requires_grad = true })
end

local function product(a, b) return (b * a):tanh(), b:sum(1) end

-- A square whose backward is `backward(x, g)`.
local function square(backward)
  return nyx.Function("square", {
    forward = function(ctx, x)
      ctx:save_for_backward(x)
      return x * x
    end,
    backward = function(ctx, g) return backward(ctx:saved_tensors(), g) end,
  })
end

-- That a check fails, and with words in its message, in this order.
local function fails(words, check, fn, inputs, options)
  options = options or {}
  options.raise_exception = false
  local ok, message = check(fn, inputs, options)
  assert.is_false(ok, "it passes")
  local from = 1
  for _, word in ipairs(words) do
    local _, last = message:find(word, from, true)
    assert(last, ("'%s' does not follow in: %s"):format(word, message))
    from = last + 1
  end
end

local function refuses(word, fn, ...)
  local ok, message = pcall(fn, ...)
  assert.is_false(ok)
  assert(tostring(message):find(word, 1, true), message)
end

describe("gradcheck", function()
  before_each(function() nyx.manual_seed(3) end)

  it("passes right gradients in all its ways", function()
    local a, b = input { 0.5, -1.2, 2 }, nyx.randn(2, 3, f64):requires_grad_()
    for _, method in ipairs { "auto", "numeric", "complex" } do
      for _, fast in ipairs { false, true } do
        local options = { method = method, fast = fast, forward = true, batched = true }
        local ok, report = nyx.gradcheck(product, { a, b }, options)
        assert.is_true(ok)
        assert.equal(method == "numeric" and "numeric" or "complex", report.method)
        assert.equal(2, report.inputs)
        assert.equal(2, report.outputs)
        assert(report.error < 1 and tostring(report):find("agree with", 1, true))
        assert.is_true(nyx.gradgradcheck(product, { a, b },
          { fast = fast, forward = true, batched = true }))
      end
    end
  end)

  it("leaves inputs, gradients, random numbers and memory as they were", function()
    local a, b = input { 0.5, -1.2, 2 }, nyx.randn(3, 2, f64):t():requires_grad_()
    local before, state = { a:totable(), b:totable() }, nyx.get_rng_state()
    local function both()
      nyx.gradcheck(product, { a, b })
      nyx.gradgradcheck(product, { a, b })
      pcall(nyx.gradcheck, function(x) return x:matmul(x) end, { b })
      collectgarbage()
      collectgarbage()
    end
    both()
    local live = nyx.memory().live
    both()
    assert.equal(live, nyx.memory().live)
    assert.same(before, { a:totable(), b:totable() })
    assert(a.grad == nil and b.grad == nil and a.requires_grad and b.is_leaf)
    assert.same({ 1, 2 }, b:stride())
    assert.equal(state, nyx.get_rng_state())
  end)

  it("takes inputs of any strides, results in tables, numbers and tensors among the inputs",
    function()
      local wide = nyx.randn(4, 6, f64)
      local x = wide:narrow(2, 1, 3, 2):t():detach():requires_grad_()
      local mask = nyx.tensor({ true, false, true, true })
      nyx.gradcheck(function(t, p, m)
        return { value = t ^ p, list = { t:masked_fill(m, { value = 0 }), t:argmax() } }
      end, { x, 3, mask }, { atol = 1e-6, rtol = 1e-6 })
      nyx.gradcheck(nyx.exp, input(0.5)) -- a single tensor, of no dimensions
      nyx.gradcheck(nyx.exp, { nyx.zeros(2, 0, f64):requires_grad_() })
      nyx.gradcheck(function(t) return t end, { x }) -- its input itself
      local y = x * 2 -- no leaf
      nyx.gradcheck(nyx.sin, { y })
      nyx.gradcheck(function(t, u) return t * u end, { x, wide:narrow(2, 1, 3):t() })
    end)

  it("checks parameters that a module holds", function()
    local linear, x = nn.Linear(3, 2):to("float64"), nyx.randn(4, 3, f64)
    local ok, report = nyx.gradcheck(function() return linear(x) end, linear:parameters(),
      { forward = true, batched = true })
    assert(ok and report.method == "complex" and report.inputs == 2)
    nyx.gradgradcheck(function() return linear(x) end, linear:parameters())
    local net = nn.Sequential(nn.Conv2d(1, 2, 3, { padding = 1 }), nn.BatchNorm2d(2), nn.Tanh(),
      nn.AvgPool2d(2), nn.Flatten(), nn.Linear(8, 2)):to("float64")
    local inputs, images = net:parameters(), nyx.randn(2, 1, 4, 4, f64):requires_grad_()
    inputs[#inputs + 1] = images
    ok, report = nyx.gradcheck(function() return net(images) end, inputs, { rtol = 1e-5 })
    assert(ok and report.method == "numeric")
    assert(report.reason:find("batch_norm", 1, true), report.reason)
    nyx.gradgradcheck(function() return net(images) end, inputs, { fast = true, rtol = 1e-5 })
    for _, p in ipairs(net:parameters()) do assert(p.grad == nil) end
  end)

  it("finds gradients that are a little off, of wrong sign or missing, and says where", function()
    local x = input { { 0.5, 1, 2 }, { 3, -1, 4 } }
    nyx.gradcheck(square(function(t, g) return 2 * t * g end), { x }, { method = "complex" })
    for _, method in ipairs { "numeric", "complex" } do
      for _, fast in ipairs { false, true } do
        local o = { method = method, fast = fast }
        fails({ "output 1, element (2, 3)", "input 1, element (2, 3)", "backward gives 8.08",
          method == "complex" and "the complex step gives 8" or "central differences give",
          "6 of 36", "1.01 times", "gradient of 'square'" }, nyx.gradcheck,
          square(function(t, g) return 2.02 * t * g end), { x }, o)
        fails({ "element (2, 3)", "gives -8", " -1 times" }, nyx.gradcheck,
          square(function(t, g) return -2 * t * g end), { x }, o)
        fails({ "element (2, 3)", "gives 0", "gives 8" }, nyx.gradcheck,
          function(t) return square(function() return nil end)(t) + t * 0 end, { x },
          { method = "complex" })
      end
    end
    local one = nyx.zeros(2, 3, f64)
    one[2][1] = 0.01
    fails({ "output 1, element (2, 1)", "input 1, element (2, 1)", "backward gives 6.01",
      "1 of 36" }, nyx.gradcheck, square(function(t, g) return 2 * t * g + one * g end), { x })
  end)

  it("names the second of several inputs and outputs", function()
    local Pair = nyx.Function("pair", {
      forward = function(_, a, b) return a + b, a - b * 2 end,
      backward = function(_, g, h) return g + h, g - h end, -- not 2 h
    })
    fails({ "output 2, element (1)", "input 2, element (1)", "gives -1", "gives -2" },
      nyx.gradcheck, Pair, { input { 1, 2, 3 }, input { 4, 5, 6 } }, { method = "complex" })
  end)

  it("finds what is wrong only in forward mode, under vmap or the second time", function()
    local x = input { 0.5, 2 }
    -- to backward detach is a constant, to the derivative a part of the value
    local function straight(t) return t + (t:round() - t):detach() end
    fails({ "1 apart" }, nyx.gradcheck, straight, { x }, { method = "numeric" })
    fails({ "the complex step gives 0" }, nyx.gradcheck, straight, { x },
      { method = "complex" })
    local calls = 0
    local Moody = square(function(t, g)
      calls = calls + 1
      return 2 * t * g + (calls % 2) * 1e-12
    end)
    fails({ "two backward passes differ", "nondet_tol" }, nyx.gradcheck, Moody, { x })
    nyx.gradcheck(Moody, { x }, { nondet_tol = 1e-11 })
    local Unbatched = square(function(t, g)
      return nyx.lift.is_lifted(g) and g or 2 * t * g
    end)
    nyx.gradcheck(Unbatched, { x })
    fails({ "backward under vmap gives 1", "gives 4" }, nyx.gradcheck, Unbatched, { x },
      { batched = true })
    local function leaks(t) return nyx.lift.is_lifted(t) and t * 3 or t * 2 end
    fails({ "forward mode gives 3" }, nyx.gradcheck, leaks, { x },
      { forward = true, method = "numeric" })
  end)

  it("says when numbers are not finite", function()
    fails({ "element (2)", "inside its domain" }, nyx.gradcheck, nyx.log, { input { 1, -1 } },
      { method = "numeric" })
    fails({ "element (1)", "backward gives nan", "nyx.anomaly" }, nyx.gradcheck,
      square(function(t, g) return 2 * t * g * (t / t) end), { input { 0, 1 } })
    local masked = function(t) return t * 2 + nyx.tensor({ 0, -math.huge }, f64) end
    nyx.gradcheck(masked, { input { 1, 2 } })
    nyx.gradcheck(function(t) return (masked(t):exp()) end, { input { 1, 2 } })
  end)

  it("skips results that have no gradient", function()
    local x = input { 3, 1, 2 }
    local ok, report = nyx.gradcheck(function(t) return t:argmax(), t * 2, t:gt(1) end, { x })
    assert(ok and report.outputs == 1)
    local Both = nyx.Function("both", {
      forward = function(ctx, t)
        local y = t * 3
        ctx:mark_non_differentiable(y)
        return t * 2, y
      end,
      backward = function(_, g) return g * 2 end,
    })
    ok, report = nyx.gradcheck(Both, { x })
    assert(ok and report.outputs == 1)
    fails({ "nothing to differentiate" }, nyx.gradcheck, function(t) return t:argmax() end, { x })
    fails({ "leave the graph" }, nyx.gradcheck, function(t) return t:detach() * 2 end, { x })
    nyx.gradcheck(function() return nyx.ones(2, f64) end, { x }) -- constant, and says so
  end)

  it("refuses functions that change their inputs, are random, or give nothing", function()
    local x, c = input { 1, 2 }, nyx.tensor({ 5, 6 }, f64)
    fails({ "changes input 1 in place", "element (2)" }, nyx.gradcheck, function(t)
      t[2] = 7
      return t * 2
    end, { x })
    fails({ "changes input 2 in place" }, nyx.gradcheck, function(t, u) return t * u:add_(1) end,
      { x, c })
    assert.same({ 5, 6 }, c:totable())
    fails({ "random", "output 1" }, nyx.gradcheck, function(t) return t * nyx.rand(2, f64) end,
      { x })
    nyx.gradcheck(function(t)
      nyx.manual_seed(1)
      return t * nyx.rand(2, f64)
    end, { x })
    refuses("fn returned nothing", nyx.gradcheck, function() end, { x })
    refuses("fn returned number 3", nyx.gradcheck, function() return 3 end, { x })
    refuses("boom", nyx.gradcheck, function() error "boom" end, { x })
    assert.same({ 1, 2 }, x:totable())
  end)

  it("refuses wrong arguments at the caller's line", function()
    local x = input { 1, 2 }
    refuses("gradcheck_spec.lua", nyx.gradcheck, nyx.exp, { x:detach() })
    refuses("no input requires a gradient", nyx.gradcheck, nyx.exp, { x:detach() })
    refuses("'fn' is number 3", nyx.gradcheck, 3, { x })
    refuses("'inputs' is nil", nyx.gradcheck, nyx.exp)
    refuses("unknown option 'epsilon'", nyx.gradcheck, nyx.exp, { x }, { epsilon = 1 })
    refuses("'method' is string 'exact'", nyx.gradcheck, nyx.exp, { x }, { method = "exact" })
    refuses("'eps' is 0", nyx.gradcheck, nyx.exp, { x }, { eps = 0 })
    refuses("'rtol' is number -1", nyx.gradcheck, nyx.exp, { x }, { rtol = -1 })
    refuses("one tensor", nyx.gradcheck, nyx.add, { x, x })
    refuses("share memory", nyx.gradcheck, nyx.exp, { input({ { 1 }, { 2 } }):expand(2, 3) })
    refuses("share memory", nyx.gradcheck, nyx.exp, { input({ 1, 2, 3 }):unfold(1, 2, 1) })
    nyx.gradcheck(nyx.exp, { input({ 1, 2, 3, 4 }):unfold(1, 2, 2) })
    refuses("no rule", nyx.gradcheck, nyx.softmax, { x, { dim = 1 } }, { method = "complex" })
  end)

  it("takes float32 with tolerances that suit it", function()
    local x = nyx.randn(3, { requires_grad = true })
    refuses("to(\"float64\")", nyx.gradcheck, nyx.sin, { x })
    local ok, report = nyx.gradcheck(nyx.sin, { x }, { eps = 1e-2, atol = 1e-2 })
    assert(ok and report.method == "numeric")
    fails({ "element" }, nyx.gradcheck, square(function(t, g) return 3 * t * g end), { x },
      { eps = 1e-2, atol = 1e-2 })
  end)

  it("takes differences where the complex step cannot follow, and says so", function()
    local x = input { 1, 2 }
    local ok, report = nyx.gradcheck(function(t) return t:softmax(1) end, { x })
    assert(ok and report.method == "numeric" and tostring(report):find("op 'softmax' has no rule"))
    ok, report = nyx.gradcheck(function(t) return t * t:detach():sum():item() end, { x },
      { raise_exception = false })
    assert(not ok and report:find("central differences", 1, true), report)
    ok, report = nyx.gradcheck(function(t) return t:to("float32") end, { x }, { atol = 0.1 })
    assert(ok and report.reason:find("float32", 1, true))
    ok, report = nyx.gradcheck(function(t)
      return nyx.func.grad(function(u) return (u ^ 3):sum() end)(t)
    end, { x })
    assert(ok and report.reason:find("gradients of complex tensors", 1, true))
  end)
end)

describe("gradgradcheck", function()
  local x = input { { 0.5, 1, 2 }, { 3, -1, 4 } }

  it("finds what is wrong only at second order", function()
    local Once = square(function(t, g) return 2 * t:detach() * g end)
    nyx.gradcheck(Once, { x })
    fails({ "the gradient by input 1, element (", "by input 1, element (", "gives 0",
      "6 of 36" }, nyx.gradgradcheck, Once, { x })
    local Off = square(function(t, g) -- right in value, of wrong slope
      return 2 * t * g + 0.01 * (t - t:detach()) * g
    end)
    nyx.gradcheck(Off, { x })
    fails({ "the gradient by input 1", "central differences" }, nyx.gradgradcheck, Off, { x },
      { atol = 1e-6, rtol = 1e-4 })
    local Lost = square(function(t, g) return 2 * t * g:detach() end)
    nyx.gradcheck(Lost, { x })
    fails({ "by the gradient of output 1, element (2, 3)", "gives 0", "give 8" },
      nyx.gradgradcheck, Lost, { x })
    local Nothing = square(function(t, g) return (2 * t * g):detach() end)
    fails({ "leave the graph" }, nyx.gradgradcheck, Nothing, { x })
  end)

  it("takes gradients of the outputs, and options in their place", function()
    local g = nyx.ones(2, 3, f64)
    local ok, report = nyx.gradgradcheck(nyx.exp, { x }, { g })
    assert(ok and report.inputs == 1)
    ok, report = nyx.gradgradcheck(nyx.exp, { x }, g:clone():requires_grad_(), { fast = true })
    assert(ok and report.inputs == 2 and report.method == "numeric")
    ok, report = nyx.gradgradcheck(nyx.exp, { x }, { rtol = 1e-4 })
    assert(ok and report.inputs == 2)
    refuses("grad_outputs[1] is number 3", nyx.gradgradcheck, nyx.exp, { x }, { 3 })
    refuses("expected that of output 1", nyx.gradgradcheck, nyx.exp, { x }, { nyx.ones(3, f64) })
    refuses("no output of fn has a gradient", nyx.gradgradcheck, nyx.argmax, { x })
  end)
end)

describe("the complex step", function()
  -- n numbers spread over lo..hi, away from whole numbers, where rows have kinks.
  local function spread(n, lo, hi, skip)
    local list = {}
    for i = 1, n do
      local v = lo + (hi - lo) * ((i + skip) * 0.6180339887 % 1)
      if math.abs(v - math.floor(v + 0.5)) < 0.02 then v = v + 0.04 end
      list[i] = v
    end
    return input(list)
  end

  for op in nyx.ops() do
    if op.kind == "elementwise" and op.differentiable then
      it("agrees with backward and with differences on " .. op.name, function()
        local inputs = {}
        for i = 1, #op.inputs do
          inputs[i] = spread(9, op.domain[1], op.domain[2], 10 * i)
          if case.constant(op, i) then inputs[i] = inputs[i]:detach() end
        end
        local ok, report = nyx.gradcheck(nyx[op.name], inputs,
          { method = "complex", rtol = 1e-12, atol = 1e-13 })
        assert(ok and report.method == "complex")
        nyx.gradcheck(nyx[op.name], inputs, { method = "numeric", rtol = 1e-6, atol = 1e-6 })
      end)
    end
  end

  it("follows powers of negative numbers, and zeros", function()
    nyx.gradcheck(function(t) return t ^ 3, t ^ -2, t ^ 0 end, { input { -2, -0.5, 3 } },
      { method = "complex" })
    nyx.gradcheck(function(t) return t ^ 2, t ^ 1 end, { input { 0, 1 } }, { method = "complex" })
  end)

  it("follows changes in place, views and products", function()
    local w = nyx.randn(3, 3, f64):requires_grad_()
    nyx.gradcheck(function(t, m)
      local y = m:matmul(t:sin())
      y[2]:mul_(3)
      y[{ { 1, 2 } }] = y[{ { 2, 3 } }]:clone() * t[1]
      return nyx.cat({ y:exp(), m:t():reshape(-1) }), nyx.linear(t, m, t:cos())
    end, { input { 0.5, -0.25, 1 }, w }, { method = "complex", batched = true, forward = true })
  end)
end)
