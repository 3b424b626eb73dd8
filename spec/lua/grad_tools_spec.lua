-- The tools around backward in Lua: hooks, retained gradients, nyx.Function, anomaly mode
-- and the profiler. Values are PyTorch's, or follow from the formulas beside them.
local nyx = require "nyx"

local function leaf(values)
  return nyx.tensor(values, { dtype = "float64", requires_grad = true })
end

local function close(expected, got)
  got = type(got) == "number" and { got } or got:totable()
  if type(got) == "number" then got = { got } end
  expected = type(expected) == "number" and { expected } or expected
  assert.equal(#expected, #got)
  for i = 1, #expected do
    assert.is_true(math.abs(expected[i] - got[i]) <= 1e-12 * math.max(1, math.abs(expected[i])),
      ("element %d is %.17g, expected %.17g"):format(i, got[i], expected[i]))
  end
end

local function fails(pattern, f, ...)
  local ok, message = pcall(f, ...)
  assert.is_false(ok)
  assert.is_truthy(tostring(message):find(pattern, 1, true), tostring(message))
  return message
end

local function here()
  return debug.getinfo(2, "l").currentline
end

describe("hooks", function()
  it("see and replace gradients, in order", function()
    local x = leaf { 2, 3 }
    local y = x * x
    local seen = {}
    y:register_hook(function(g)
      seen[#seen + 1] = g[1]:item()
      return g * 3
    end)
    y:register_hook(function(g) seen[#seen + 1] = g[1]:item() end)
    x:register_hook(function(g)
      seen[#seen + 1] = g[1]:item()
      return g * 10
    end);
    (y * y):sum():backward()
    assert.are.same({ 8, 24, 96 }, seen)
    close({ 960, 3240 }, x.grad)
  end)

  it("are removed by their handle", function()
    local x, calls = leaf { 1 }, 0
    local handle = x:register_hook(function() calls = calls + 1 end)
    assert.equal("nyx.Hook", tostring(handle))
    x:exp():sum():backward()
    handle:remove()
    handle:remove()
    assert.equal("nyx.Hook (removed)", tostring(handle))
    x:exp():sum():backward()
    assert.equal(1, calls)
    -- one that removes itself
    local own
    own = x:register_hook(function()
      calls = calls + 1
      own:remove()
    end)
    x:exp():sum():backward()
    x:exp():sum():backward()
    assert.equal(2, calls)
  end)

  it("of a tensor that changed in place stay with what it was", function()
    local x, seen = leaf { 2 }, nil
    local y = x * x
    local handle = y:register_hook(function(g) seen = g:item() end)
    y:mul_(nyx.tensor({ 3 }, { dtype = "float64" }))
    y:sum():backward { retain_graph = true }
    assert.equal(3, seen)
    seen = nil
    handle:remove()
    y:sum():backward()
    assert.is_nil(seen)
  end)

  it("run in nyx.grad, and are recorded with create_graph", function()
    local x = leaf { 3 }
    local y = x * x
    x:register_hook(function(g) return g * 2 end)
    local enabled
    y:register_hook(function(g)
      enabled = nyx.is_grad_enabled()
      return g * 5
    end)
    local g = nyx.grad(y * x, { x, y }, { create_graph = true })
    assert.is_true(enabled)
    close(198, g[1])
    close(15, g[2])
    assert.is_nil(x.grad)
    close(360, nyx.grad(g[1], x))
  end)

  it("do not record without create_graph", function()
    local x, enabled, made = leaf { 3 }, nil, nil
    x:register_hook(function(g)
      enabled = nyx.is_grad_enabled()
      nyx.set_grad_enabled(true)
      made = g * 2
    end)
    x:exp():sum():backward()
    assert.is_false(enabled)
    assert.is_true(nyx.is_grad_enabled())
    assert.is_false(made.requires_grad)
    assert.is_nil(x.grad.grad_fn)
  end)

  it("may keep the gradient, which stays theirs", function()
    local x, kept = leaf { 3 }, nil
    x:register_hook(function(g) kept = g end)
    x:exp():sum():backward()
    x:exp():sum():backward()
    x.grad:zero_()
    close(math.exp(3), kept)
  end)

  it("raise their errors at the line of backward, and leave leaves alone", function()
    local x = leaf { 1, 2 }
    x.grad = nyx.tensor({ 5, 5 }, { dtype = "float64" })
    local y = x:exp()
    local line = here() + 1
    local function bad() error("no such luck") end
    y:register_hook(bad)
    local message = fails("no such luck", function() y:sum():backward() end)
    assert.is_truthy(message:find(("grad_tools_spec.lua:%d: backward: "):format(line + 2), 1, true),
      message)
    assert.is_truthy(message:find(("grad_tools_spec.lua:%d: no such luck"):format(line), 1, true),
      message)
    close({ 5, 5 }, x.grad)
    fails("no such luck", function() nyx.grad(x:exp():register_hook(bad) and y:sum(), x) end)
  end)

  it("raise values that are no strings as they are", function()
    local x, value = leaf { 1 }, { "a table" }
    local handle = x:register_hook(function() error(value) end)
    local ok, got = pcall(function() x:exp():sum():backward() end)
    assert.is_false(ok)
    assert.is_true(rawequal(value, got))
    handle:remove()
    fails("without a gradient argument", function() x:exp():expand(2):backward() end)
  end)

  it("must give gradients that fit", function()
    local x = leaf { 1, 2 }
    local function try(pattern, given)
      local handle = x:register_hook(function() return given end)
      fails(pattern, function() x:exp():sum():backward() end)
      handle:remove()
      assert.is_nil(x.grad)
    end
    try("a hook gave number 3, expected the gradient", 3)
    try("a hook of a leaf gave a tensor of shape (3), dtype float64",
      nyx.ones(3, { dtype = "float64" }))
    try("dtype float32", nyx.ones(2))
  end)

  it("take functions of tensors that require gradients", function()
    fails("bad argument #1 'hook' to 'register_hook' (function expected, got number 3)",
      function() leaf { 1 }:register_hook(3) end)
    fails("register_hook: the tensor does not require a gradient",
      function() nyx.ones(2):register_hook(print) end)
    fails("only leaves accumulate; this tensor was made by exp",
      function() leaf { 1 }:exp():register_post_accumulate_grad_hook(print) end)
    local x = leaf { 1 }
    local y = x:exp()
    y:sum():backward()
    fails("freed", function() y:register_hook(print) end)
    local called
    x:register_hook(setmetatable({}, { __call = function() called = true end }))
    x:exp():sum():backward()
    assert.is_true(called)
  end)

  it("cannot yield", function()
    local x = leaf { 1 }
    x:register_hook(function() coroutine.yield() end)
    local co = coroutine.create(function() x:exp():sum():backward() end)
    local ok, message = coroutine.resume(co)
    assert.is_false(ok)
    assert.is_truthy(message:find("yield", 1, true), message)
  end)

  it("cannot run themselves without end", function()
    local x = leaf { 1 }
    local y = (x * 2):exp():sum()
    local handle = x:register_hook(function() y:backward { retain_graph = true } end)
    local message = fails("run inside one another more than 60 deep; does one start itself again",
      function() y:backward { retain_graph = true } end)
    assert.is_true(#message < 300, message)
    handle:remove()
    y:backward()
    close(2 * math.exp(2), x.grad)
  end)

  it("keep what they use, also when it was made in a scope or a checkpoint", function()
    local x = leaf { 2 }
    local y = nyx.scope(function()
      local h, factor = x * 1, { nyx.full({ 1 }, 5, { dtype = "float64" }) }
      h:register_hook(function(g) return g * factor[1] end)
      return h:sum()
    end)
    y:backward()
    close(5, x.grad)
    x.grad = nil
    nyx.checkpoint(function(a)
      local h, factor = a * 1, nyx.full({ 1 }, 7, { dtype = "float64" })
      h:register_hook(function(g) return g * factor end)
      return h:sum()
    end, x):backward()
    close(7, x.grad)
  end)

  it("run from coroutines that are gone, and run coroutines", function()
    local x, seen = leaf { 1 }, {}
    coroutine.wrap(function()
      x:register_hook(function(g)
        seen[#seen + 1] = coroutine.wrap(function() return (g * 2):item() end)()
      end)
    end)()
    collectgarbage()
    for _ = 1, 2 do x:sum():backward() end
    assert.are.same({ 2, 2 }, seen)
  end)

  it("may run backward themselves", function()
    local x, inner = leaf { 2 }, leaf { 3 }
    x:register_hook(function(g)
      nyx.enable_grad(function() (inner * inner):sum():backward() end)
      return g * inner.grad
    end);
    (x * x):sum():backward()
    close(24, x.grad)
    close(6, inner.grad)
  end)

  it("survive a graph that is dropped under them", function()
    local x = leaf { 2 }
    local y = x * x
    local z = y:sum()
    y:register_hook(function(g)
      z:release()
      y:release()
      collectgarbage()
      return g * 2
    end)
    z:backward()
    close(8, x.grad)
    -- the graph is run, and so freed, by one of its own hooks
    y = x * x
    z = y:sum()
    local deep = false
    y:register_hook(function()
      if deep then return end
      deep = true
      z:backward()
    end)
    fails("freed", function() z:backward() end)
    assert.is_true(deep)
  end)

  it("after accumulation get the leaf", function()
    local x, seen = leaf { 1, 2 }, {}
    x:register_post_accumulate_grad_hook(function(p)
      assert.is_true(p == x)
      seen[#seen + 1] = p.grad[2]:item()
      p.grad = nil
    end)
    nyx.grad((x * x):sum(), x)
    assert.equal(0, #seen);
    (x * x):sum():backward();
    (x * x):sum():backward()
    assert.are.same({ 4, 4 }, seen)
    assert.is_nil(x.grad)
  end)

  it("let go of what they hold", function()
    local gone = setmetatable({}, { __mode = "k" })
    local function count()
      for _ = 1, 4 do collectgarbage() end
      local n = 0
      for _ in pairs(gone) do n = n + 1 end
      return n
    end
    local function hook()
      local big = {}
      gone[big] = true
      return function() return big and nil end
    end
    local function with_the_leaf()
      local x = leaf { 1 }
      x:register_hook(hook())
      assert.equal(1, count())
      assert.is_true(x.requires_grad)
    end
    with_the_leaf()
    assert.equal(0, count())
    local function with_the_graph() -- though the hook holds the tensor
      local x = leaf { 1 }
      local y = x:exp()
      local inner = hook()
      y:register_hook(function() return inner() or y and nil end)
      y:sum():backward()
    end
    with_the_graph()
    assert.equal(0, count())
    local function with_a_view() -- the way out for a hook that uses its own tensor
      local x = leaf { 1 }
      local inner, values = hook(), x:detach()
      x:register_hook(function(g) return inner() or g * values end)
    end
    with_a_view()
    assert.equal(0, count())
    local function with_the_handle(x)
      x:register_hook(hook()):remove()
    end
    local x = leaf { 1 }
    with_the_handle(x)
    assert.equal(0, count())
    assert.is_true(x.requires_grad)
  end)
end)

describe("retain_grad", function()
  it("fills the gradient of results", function()
    local x = leaf { 2, 5 }
    local y = x * x
    assert.is_false(y.retains_grad)
    assert.is_true(rawequal(y, y:retain_grad()))
    assert.is_true(y.retains_grad)
    assert.is_false(x:retain_grad().retains_grad);
    (y * 3):sum():backward { retain_graph = true }
    close({ 3, 3 }, y.grad)
    close({ 12, 30 }, x.grad);
    (y * 3):sum():backward()
    close({ 6, 6 }, y.grad)
    fails("retain_grad: the tensor does not require a gradient", function()
      nyx.ones(2):retain_grad()
    end)
    fails("cannot be assigned", function() x.retains_grad = true end)
  end)

  it("does not keep a tensor", function()
    local x = leaf { 2 }
    local sum
    do
      local y = x * x
      y:retain_grad()
      sum = y:sum()
      y:release()
    end
    collectgarbage()
    sum:backward()
    close(4, x.grad)
  end)
end)

-- ---------------------------------------------------------------- functions

local Exp = nyx.Function("my_exp", {
  forward = function(ctx, x)
    local y = x:exp()
    ctx:save_for_backward(y)
    return y
  end,
  backward = function(ctx, g)
    local y = ctx:saved_tensors()
    return g * y
  end,
})

describe("nyx.Function", function()
  it("has a gradient of any order", function()
    local x = leaf { 0.5, -1 }
    local y = Exp(x)
    assert.equal("my_exp", y.grad_fn.name)
    assert.is_true(y.requires_grad)
    local g = y
    for _ = 1, 3 do
      g = nyx.grad(g:sum(), x, { create_graph = true })
      close({ math.exp(0.5), math.exp(-1) }, g)
    end
    Exp:apply(x):sum():backward()
    close({ math.exp(0.5), math.exp(-1) }, x.grad)
    assert.equal("nyx.Function (my_exp)", tostring(Exp))
  end)

  it("is not recorded where nothing asks for it", function()
    assert.is_false(Exp(nyx.ones(2)).requires_grad)
    local x = leaf { 1 }
    nyx.no_grad(function() assert.is_false(Exp(x).requires_grad) end)
  end)

  it("takes several arguments of all kinds and gives several results", function()
    local needs
    local Scale = nyx.Function("scale", {
      forward = function(ctx, x, factor, y, name)
        assert.equal("name", name)
        ctx.factor = factor
        ctx:save_for_backward(x, y)
        needs = {}
        for i = 1, 4 do needs[i] = ctx.needs_input_grad[i] end
        return x * factor, "text", x * y
      end,
      backward = function(ctx, g1, none, g2)
        assert.is_nil(none)
        local x, y = ctx:saved_tensors()
        return g1 * ctx.factor + g2 * y, nil, ctx.needs_input_grad[3] and g2 * x or nil
      end,
    })
    local x, y = leaf { 2, 3 }, leaf { 5, 7 }
    local a, text, b = Scale(x, 10, y, "name")
    assert.equal("text", text)
    assert.are.same({ true, false, true, false }, needs);
    (a * 2 + b):sum():backward()
    close({ 25, 27 }, x.grad)
    close({ 2, 3 }, y.grad)
    -- one result alone: the other's gradient is zero
    x.grad, y.grad = nil, nil
    local only = select(3, Scale(x, 10, y, "name"))
    only:sum():backward()
    close({ 5, 7 }, x.grad)
    -- one argument alone
    local plain = y:detach()
    Scale(x, 10, plain, "name"):sum():backward()
    assert.are.same({ true, false, false, false }, needs)
  end)

  it("may give results that are not differentiable", function()
    local Split = nyx.Function("split_sign", {
      forward = function(ctx, x)
        local sign = x:sign()
        ctx:mark_non_differentiable(sign)
        ctx:save_for_backward(sign)
        return x:abs(), sign, x:argmax()
      end,
      backward = function(ctx, g, none)
        assert.is_nil(none)
        return g * ctx:saved_tensors()
      end,
    })
    local x = leaf { -2, 3 }
    local abs, sign, at = Split(x)
    assert.is_true(abs.requires_grad)
    assert.is_false(sign.requires_grad)
    assert.is_false(at.requires_grad)
    abs:sum():backward()
    close({ -1, 1 }, x.grad)
  end)

  it("may say so of an argument that it gives back", function()
    local Stop = nyx.Function("stop", {
      forward = function(ctx, x, y)
        ctx:mark_non_differentiable(x)
        return x, x * y
      end,
      backward = function(_, _, g) return g, g end,
    })
    local x, y = leaf { 1, 2 }, leaf { 3, 4 }
    local same, product = Stop(x, y)
    assert.is_false(same.requires_grad)
    assert.is_true(product.requires_grad)
    assert.is_true(x.requires_grad)
  end)

  it("may give its argument, and the same tensor twice", function()
    local Reverse = nyx.Function("reverse", {
      forward = function(_, x) return x end,
      backward = function(_, g) return -g end,
    })
    local x = leaf { 1, 2 }
    local y = Reverse(x)
    assert.is_false(y == x)
    assert.is_true(x.is_leaf)
    y:sum():backward()
    close({ -1, -1 }, x.grad)
    local Twice = nyx.Function("twice", {
      forward = function(_, v)
        local w = v * 1
        return w, w
      end,
      backward = function(_, a, b) return a + b * 10 end,
    })
    local a, b = Twice(x)
    close({ 11, 11 }, nyx.grad(a:sum() + b:sum(), x))
  end)

  it("sees saved tensors that were changed", function()
    local x = leaf { 1 }
    local y = Exp(x)
    nyx.no_grad(function() y:add_(1) end)
    fails("needed for the gradient of my_exp was changed in place", function()
      y:sum():backward()
    end)
    assert.is_nil(x.grad)
  end)

  it("runs once unless the graph is kept", function()
    local x = leaf { 1 }
    local y = Exp(x)
    y:sum():backward { retain_graph = true }
    y:sum():backward()
    close(2 * math.exp(1), x.grad)
    fails("freed", function() y:sum():backward() end)
  end)

  it("names itself when its gradient is wrong", function()
    local x, k = leaf { 1, 2 }, leaf { 1, 2 }
    local function try(pattern, backward)
      local f = nyx.Function("bad", {
        forward = function(_, a, b) return b and a * b or a * 2 end,
        backward = backward,
      })
      fails(pattern, function() f(x, k):sum():backward() end)
      assert.is_nil(x.grad)
      assert.is_nil(k.grad)
    end
    try("bad: backward gave 1 gradients, expected 2", function(_, g) return g end)
    try("bad: backward gave 3 gradients, expected 2", function(_, g) return g, g, g end)
    try("bad: backward gave number 1 as gradient 2, expected a tensor or nil",
      function(_, g) return g, 1 end)
    try("bad gave a gradient of shape () and dtype float64 for input 2, expected (2) and float64",
      function(_, g) return g, g:sum() end)
    try("bad gave a gradient of shape (2) and dtype float32 for input 1",
      function(_, g) return g:to("float32"), g end)
    try("oh dear", function() error("oh dear") end)
    local f = nyx.Function("bad", {
      forward = function(_, a, n) return a * n end,
      backward = function(_, g) return g, g end,
    })
    fails("bad: backward gave a gradient for argument 2, which is no tensor", function()
      f(x, 2):sum():backward()
    end)
    f = nyx.Function("zero", {
      forward = function(_, a) return a * 1 end,
      backward = function() return nil end,
    })
    fails("zero: backward gave 0 gradients", function()
      nyx.Function("zero", { forward = f.forward, backward = function() end })(x):sum():backward()
    end)
    f(x):sum():backward() -- nil is zero
  end)

  it("keeps the fields of ctx through a scope and a checkpoint", function()
    local Scale = nyx.Function("scale", {
      forward = function(ctx, x)
        ctx.kept = { x * 3 }
        return x * x
      end,
      backward = function(ctx, g) return g * ctx.kept[1] end,
    })
    local x = leaf { 2 }
    nyx.scope(function() return Scale(x):sum() end):backward()
    close(6, x.grad)
    x.grad = nil
    nyx.checkpoint(function(a) return Scale(a):sum() end, x):backward()
    close(6, x.grad)
  end)

  it("saves nil in its place, and may be made of what can be called", function()
    local backward = setmetatable({}, { __call = function(_, ctx, g)
      local x, none, y = ctx:saved_tensors()
      assert.is_nil(none)
      assert.equal(3, select("#", ctx:saved_tensors()))
      return g * y, nil, g * x
    end })
    local Mul = nyx.Function("mul_some", {
      forward = function(ctx, x, bias, y)
        ctx:save_for_backward(x, bias, y)
        return x * y
      end,
      backward = backward,
    })
    local x, y = leaf { 2 }, leaf { 5 }
    Mul(x, nil, y):sum():backward()
    close(5, x.grad)
    close(2, y.grad)
  end)

  it("refuses a forward that changes what is recorded", function()
    local Double = nyx.Function("double", {
      forward = function(_, x, buffer)
        buffer:add_(1)
        x:mul_(2)
        return x
      end,
      backward = function(_, g) return g * 2 end,
    })
    local x, buffer = leaf { 1 }, nyx.zeros(1)
    fails("double: forward changed an argument in place, tensor 1 of those it got",
      function() Double(x * 1, buffer) end)
    nyx.no_grad(Double.apply, Double, x, buffer)
    close(2, x:detach())
  end)

  it("may have a gradient without a gradient", function()
    local Cube = nyx.Function("cube", {
      forward = function(ctx, x)
        ctx:save_for_backward(x)
        return x * x * x
      end,
      backward = function(ctx, g) return g * 3 * ctx:saved_tensors():detach():square() end,
      once_differentiable = true,
    })
    local x = leaf { 2 }
    close(12, nyx.grad(Cube(x):sum(), x))
    fails("cube: backward is once_differentiable, it has no gradient of its own",
      function() nyx.grad(Cube(x):sum(), x, { create_graph = true }) end)
  end)

  it("names gradients and saved tensors that were released", function()
    local Bad = nyx.Function("bad", {
      forward = function(_, x) return x * 2 end,
      backward = function(_, g)
        local r = g * 2
        r:release()
        return r
      end,
    })
    fails("bad: backward gave a released tensor as gradient 1",
      function() Bad(leaf { 1 }):sum():backward() end)
    local Gone = nyx.Function("gone", {
      forward = function(ctx, x)
        local y = x * 2
        ctx:save_for_backward(x, y)
        y:release()
        return x * 1
      end,
      backward = function(_, g) return g end,
    })
    fails("gone: saved tensor 2 is a released tensor", function() Gone(leaf { 1 }) end)
  end)

  it("checks what it is made of", function()
    fails("Function: 'name' is number 3", function() nyx.Function(3, {}) end)
    fails("Function: 'backward' is nil, expected a function",
      function() nyx.Function("f", { forward = print }) end)
    fails("unknown option 'foward'",
      function() nyx.Function("f", { foward = print, backward = print }) end)
    fails("f: save_for_backward got number 3, expected tensors", function()
      nyx.Function("f", {
        forward = function(ctx, x) ctx:save_for_backward(3) return x end,
        backward = print,
      })(leaf { 1 })
    end)
  end)

  it("passes errors of forward on", function()
    local f = nyx.Function("f", { forward = function() error({ 7 }) end, backward = print })
    local ok, value = pcall(f, leaf { 1 })
    assert.is_false(ok)
    assert.are.same({ 7 }, value)
    assert.is_true(nyx.is_grad_enabled())
  end)

  it("has hooks, and is seen by them", function()
    local x = leaf { 1 }
    local y = Exp(x)
    y:register_hook(function(g) return g * 2 end)
    y:retain_grad()
    y:sum():backward()
    close(2 * math.exp(1), x.grad)
    close(2, y.grad)
  end)

  it("may run its own graph again inside backward", function()
    local x, deep = leaf { 1 }, false
    local z
    local f = nyx.Function("again", {
      forward = function(ctx, a)
        ctx:save_for_backward(a)
        return a * 2
      end,
      backward = function(ctx, g)
        if not deep then
          deep = true
          z:backward() -- frees what runs
          x.grad = nil
        end
        collectgarbage()
        return g * 2 + ctx:saved_tensors() * 0
      end,
    })
    z = f(x):sum()
    z:backward { retain_graph = true }
    close(2, x.grad)
  end)

  it("lets go of its graph", function()
    local weak = setmetatable({}, { __mode = "k" })
    do
      local x = leaf { 1 }
      local f = nyx.Function("f", {
        forward = function(ctx, a)
          local big = {}
          weak[big] = true
          ctx.big = big
          local y = a * 2
          ctx:save_for_backward(y, a)
          return y
        end,
        backward = function(_, g) return g * 2 end,
      })
      f(x) -- dropped
      f(x):sum():backward()
    end
    for _ = 1, 4 do collectgarbage() end
    assert.is_nil(next(weak))
  end)
end)

-- ---------------------------------------------------------------- anomaly mode

describe("anomaly mode", function()
  it("names the op, the line and the input", function()
    local x = leaf { 4, 0 }
    local line
    local message = fails("the gradient of sqrt gave nan for input 1", function()
      nyx.detect_anomaly(function()
        line = here() + 1
        local y = x:sqrt()
        local z = (y * 0):sum() -- 0 * inf
        z:backward()
      end)
    end)
    assert.is_truthy(message:find(("grad_tools_spec.lua:%d: backward: "):format(line + 2), 1, true),
      message)
    assert.is_truthy(message:find(("applied at spec/lua/grad_tools_spec.lua:%d, called from")
      :format(line), 1, true) or message:find(("grad_tools_spec.lua:%d, called from"):format(line),
      1, true), message)
    assert.is_nil(x.grad)
    assert.is_false(nyx.is_anomaly_enabled())
  end)

  it("knows layers by the line that calls them", function()
    local layer = nyx.nn.Linear(2, 1)
    local line
    local message = fails("gave nan", function()
      nyx.detect_anomaly(function()
        local x = nyx.tensor({ { 1, 0 / 0 } })
        line = here() + 1
        local y = layer(x)
        y:sum():backward()
      end)
    end)
    assert.is_truthy(message:find(("applied at .*grad_tools_spec%%.lua:%d"):format(line)), message)
  end)

  it("is off unless asked for", function()
    local x = leaf { 0 };
    (x:sqrt() * 0):sum():backward()
    assert.is_true(x.grad:isnan():item())
    assert.is_false(nyx.is_anomaly_enabled())
    nyx.set_anomaly_enabled(true)
    assert.is_true(nyx.is_anomaly_enabled())
    assert.equal(7, nyx.detect_anomaly(function(...) return select("#", ...) + 4 end, 1, 2, 3))
    assert.is_true(nyx.is_anomaly_enabled())
    fails("gave nan", function() (x:sqrt() * 0):sum():backward() end)
    nyx.set_anomaly_enabled(false)
    x.grad = nil;
    (x:sqrt() * 0):sum():backward()
    assert.is_true(x.grad:isnan():item())
    fails("bad argument #1 'on' to 'set_anomaly_enabled'",
      function() nyx.set_anomaly_enabled(1) end)
    fails("bad argument #1 'fn' to 'detect_anomaly'", function() nyx.detect_anomaly(1) end)
  end)

  it("sees coroutines, also ones that are gone", function()
    local x, y = leaf { 0 }, nil
    local line
    nyx.set_anomaly_enabled(true)
    coroutine.wrap(function()
      line = here() + 1
      y = x:sqrt()
    end)()
    collectgarbage()
    local message = fails("gave nan", function() (y * 0):sum():backward() end)
    nyx.set_anomaly_enabled(false)
    assert.is_truthy(message:find(("grad_tools_spec.lua:%d"):format(line), 1, true), message)
  end)

  it("watches functions and second order", function()
    local x = leaf { 1 }
    local Bad = nyx.Function("bad_one", {
      forward = function(_, a) return a * 2 end,
      backward = function(_, g) return g * (0 / 0) end,
    })
    fails("the gradient of bad_one gave nan for input 1; it was applied at", function()
      nyx.detect_anomaly(function() Bad(x):sum():backward() end)
    end)
    nyx.detect_anomaly(function()
      local g = nyx.grad((x * x):sum(), x, { create_graph = true })
      close(2, nyx.grad(g:sum(), x))
    end)
  end)
end)

-- ---------------------------------------------------------------- profiler

describe("profile_backward", function()
  it("counts every op's gradient", function()
    local x = nyx.ones(100, 100, { requires_grad = true })
    local loss = (x * x * x):exp():sum()
    local report, a, b = nyx.profile_backward(function(v)
      loss:backward()
      return v, nil
    end, 5)
    assert.equal(5, a)
    assert.is_nil(b)
    local rows = {}
    for i, row in ipairs(report) do
      rows[row.name] = row
      assert.is_true(row.seconds >= 0 and row.seconds < 60)
      assert.is_true(i == 1 or report[i - 1].seconds >= row.seconds)
    end
    assert.equal(2, rows.mul.calls)
    assert.equal(1, rows.exp.calls)
    assert.equal(1, rows.sum.calls)
    assert.equal(1, rows.accumulate.calls)
    assert.is_true(rows.mul.bytes >= 3 * 40000, rows.mul.bytes)
    assert.is_true(rows.exp.bytes >= 40000)
    local text = tostring(report)
    assert.is_truthy(text:find("mul +2 +%d+%.%d+ +%d+%.%d%% +%d+%.%d KiB"), text)
    assert.is_truthy(text:find("\nall +5 "), text)
  end)

  it("sees nothing else, and ends with its function", function()
    local x = leaf { 1 }
    local inner
    local outer = nyx.profile_backward(function()
      inner = nyx.profile_backward(function() x:exp():sum():backward() end)
      x:tanh():sum():backward()
    end)
    x:sin():sum():backward()
    local function names(report)
      local set = {}
      for _, row in ipairs(report) do set[row.name] = row.calls end
      return set
    end
    assert.are.same({ exp = 1, sum = 1, accumulate = 1 }, names(inner))
    assert.are.same({ tanh = 1, sum = 1, accumulate = 1 }, names(outer))
    fails("stop", nyx.profile_backward, function() error("stop") end)
    assert.are.same({}, names(nyx.profile_backward(function() end)))
    fails("bad argument", nyx.profile_backward, 3)
  end)
end)
